"""How errors are answered: one body for all of them, one table from codes to HTTP statuses."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from safelight.errors import (
    AuthInvalidError,
    AuthMissingError,
    ChecksumMismatchError,
    ContractMismatchError,
    ForbiddenPathError,
    InsufficientFundsError,
    InvalidFieldValueError,
    MissingFileError,
    MissingRequiredFieldError,
    PipelineError,
    RateLimitExceededError,
)
from safelight.gateway.correlating import correlation_id
from safelight.params import shown
from safelight.reports import as_known

STATUSES = {
    "AUTH_MISSING": 401,
    "AUTH_INVALID": 502,  # it is the gateway's own key that the other side refused
    "CONTRACT_MISMATCH": 400,
    "MISSING_REQUIRED_FIELD": 400,
    "INVALID_FIELD_VALUE": 400,
    "DEPENDENCY_MISSING": 503,
    "ENGINE_OFFLINE": 503,
    "ENGINE_TIMEOUT": 504,
    "DOWNLOAD_FAILED": 502,
    "CHECKSUM_MISMATCH": 500,  # stored bytes are damaged
    "CHECKSUM_MISSING": 400,
    "LICENSE_UNKNOWN": 400,
    "DISK_FULL": 507,
    "FILE_NOT_FOUND": 404,
    "PERMISSION_DENIED": 403,
    "STORE_UNAVAILABLE": 503,
    "OUT_OF_MEMORY": 503,
    "RATE_LIMIT_EXCEEDED": 429,
    "CONSENT_MISSING": 400,
    "INSUFFICIENT_FUNDS": 402,
    "SAFETY_FILTER": 400,
    "UNKNOWN_ERROR": 500,
}
"""Status of each code. What the caller can mend is 4xx; a class with a `status` goes before."""


class Problem(BaseModel):
    """The body of every answer that is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    ok: bool = False
    """Always false."""
    error_code: str
    """Stable name of the cause."""
    message: str
    """What was found and what was expected."""
    remediation: list[str]
    """What to do."""
    correlation_id: str
    """Of the request: its X-Correlation-ID, or one that was made for it."""
    state: str | None = None
    """Status of the job where that is what forbids it."""


class UnknownJobError(MissingFileError):
    """There is no job of this id."""

    status: ClassVar[int] = 404


class UnknownPresetError(ContractMismatchError):
    """There is no preset of this id."""

    status: ClassVar[int] = 404


class UnknownRouteError(ContractMismatchError):
    """The gateway has no such path, or not for this method."""

    status: ClassVar[int] = 404


class WrongMethodError(UnknownRouteError):
    """The path takes other methods."""

    status: ClassVar[int] = 405


class ForeignRequestError(ForbiddenPathError):
    """The request names another host, comes from a foreign page, or from another machine."""

    status: ClassVar[int] = 403


class KeyMissingError(AuthMissingError):
    """The gateway wants a key or a session, and the request has none."""

    status: ClassVar[int] = 401


class KeyRefusedError(AuthInvalidError):
    """The key or session of the request is not good."""

    status: ClassVar[int] = 401


class ScopeError(ForbiddenPathError):
    """The caller is known, and may not do this."""

    status: ClassVar[int] = 403


class ForgedRequestError(ForbiddenPathError):
    """A request with a browser's session has not the token that its pages have."""

    status: ClassVar[int] = 403


class SlowDownError(RateLimitExceededError):
    """The caller asks too often, or its share of the day is used up."""

    status: ClassVar[int] = 429

    def __init__(self, problem: str, remedy: str | None = None, retry_after: float = 0.0) -> None:
        super().__init__(problem, remedy)
        self.retry_after = retry_after


class ShareSpentError(InsufficientFundsError):
    """The caller's money of the day is spent."""

    status: ClassVar[int] = 402

    def __init__(self, problem: str, remedy: str | None = None, retry_after: float = 0.0) -> None:
        super().__init__(problem, remedy)
        self.retry_after = retry_after


class ContentTypeError(ContractMismatchError):
    """The body is not of a kind that is taken."""

    status: ClassVar[int] = 415


class BodyTooLongError(InvalidFieldValueError):
    """The body has more bytes than are taken."""

    status: ClassVar[int] = 413


class BeyondEndError(InvalidFieldValueError):
    """A range begins where the file has ended.

    Args:
        problem: what was asked for.
        remedy: what to do.
        size: bytes of the file.
    """

    status: ClassVar[int] = 416

    def __init__(self, problem: str, remedy: str | None = None, size: int = 0) -> None:
        super().__init__(problem, remedy)
        self.size = size


class UploadDamagedError(ChecksumMismatchError):
    """Other bytes came than the caller said."""

    status: ClassVar[int] = 400


class MissingUploadError(MissingFileError):
    """There is no upload of this id, or it was not gone on with for too long."""

    status: ClassVar[int] = 404


class UnfinishedUploadError(MissingFileError):
    """Parts of the upload are missing."""

    status: ClassVar[int] = 409


class OffsetConflictError(InvalidFieldValueError):
    """A part of an upload begins elsewhere than the upload goes on."""

    status: ClassVar[int] = 409


class PartDamagedError(ChecksumMismatchError):
    """A part of an upload is not what its checksum says."""

    status: ClassVar[int] = 460  # of the protocol tus


class UploadBusyError(InvalidFieldValueError):
    """Another part of the upload is coming."""

    status: ClassVar[int] = 423


class TusVersionError(ContractMismatchError):
    """The request speaks another version of the protocol tus, or none."""

    status: ClassVar[int] = 412


class KeyTakenError(InvalidFieldValueError):
    """An Idempotency-Key was given before, with another request."""

    status: ClassVar[int] = 409


class StateConflictError(ContractMismatchError):
    """The state of the job does not allow it."""

    status: ClassVar[int] = 409

    def __init__(self, problem: str, remedy: str | None = None, state: str | None = None) -> None:
        super().__init__(problem, remedy)
        self.state = state


def status_of(error: PipelineError) -> int:
    """The HTTP status of an error."""
    own = getattr(error, "status", None)
    return own if isinstance(own, int) else STATUSES.get(error.code, 500)


def problem_of(error: PipelineError, correlation: str) -> Problem:
    """The body of an error."""
    return Problem(
        error_code=error.code,
        message=error.problem,
        remediation=[error.remedy],
        correlation_id=correlation,
        state=error.state if isinstance(error, StateConflictError) else None,
    )


def answer_to(error: PipelineError, correlation: str) -> JSONResponse:
    """The whole answer of an error."""
    body = problem_of(error, correlation).model_dump(mode="json", exclude_none=True)
    status = status_of(error)
    headers: dict[str, str] = {}
    if isinstance(error, SlowDownError | ShareSpentError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    elif error.transient and status in (429, 503, 504):
        headers["Retry-After"] = "2"
    if isinstance(error, BeyondEndError):
        headers["Content-Range"] = f"bytes */{error.size}"
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, status, headers)


def on_pipeline_error(request: Request, error: Exception) -> Response:
    """Answer an error of ours; FastAPI calls it."""
    known = error if isinstance(error, PipelineError) else as_known(error)
    return answer_to(known, correlation_id(request.scope))


def on_invalid_request(request: Request, error: Exception) -> Response:
    """Answer what FastAPI refused in path, query, headers or body."""
    if not isinstance(error, RequestValidationError):
        raise error
    return answer_to(refused_request(error.errors()), correlation_id(request.scope))


def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer what Starlette refuses: unknown paths and methods, bodies that are no JSON."""
    if not isinstance(error, HTTPException):
        raise error
    if isinstance(error.__cause__, PipelineError):  # while the body was read
        return on_pipeline_error(request, error.__cause__)
    path, method = shown(request.url.path), request.method
    if error.status_code == 405:
        known: PipelineError = WrongMethodError(
            f"{path} does not take {method}", "use a method that /api/openapi.json lists for it"
        )
    elif error.status_code == 404:
        known = UnknownRouteError(f"there is no {path}", "use a path of /api/openapi.json")
    else:
        known = InvalidFieldValueError(
            f"the request cannot be read: {error.detail}", "correct the body"
        )
    answer = answer_to(known, correlation_id(request.scope))
    answer.headers.update(error.headers or {})
    return answer


def refused_request(errors: Sequence[Any]) -> PipelineError:
    """The first thing that pydantic refused in a request, as an error of ours."""
    first, others = errors[0], len(errors) - 1
    place, *inside = (str(part) for part in first["loc"])
    field = ".".join(inside) or f"the {place}"
    more = f" (and {others} more)" if others else ""
    if first["type"] == "missing":
        return MissingRequiredFieldError(f"{field} is missing{more}", f"give {field} a value")
    if first["type"] == "extra_forbidden":
        return ContractMismatchError(
            f"there is no field {field}{more}", f"remove {field} or correct its name"
        )
    if first["type"] == "json_invalid":
        said = (first.get("ctx") or {}).get("error", first["msg"])
        return InvalidFieldValueError(f"the body is not JSON: {said}", "correct the body")
    expected = first["msg"].removeprefix("Value error, ")
    found = shown(first.get("input"))
    return InvalidFieldValueError(f"{field} is {found}: {expected}{more}", f"correct {field}")
