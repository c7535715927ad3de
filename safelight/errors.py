"""The one error tree: every failure has a code, what was found, and what to do next."""

import re
import unicodedata
from typing import ClassVar

from safelight.redacting import redacted

NO_REMEDY = "read the run's log"
_SAID = re.compile(r"\[[A-Z_]+\] (.*)\. Fix: (.*)\.", re.DOTALL)
_BREAKS = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Controls, halves of a pair, line and paragraph separators: no line may hold them."""
_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They change the order in which what follows is shown."""


def one_line(text: str) -> str:
    """Text of strangers, such as a file's name, as part of one line.

    Line breaks, terminal escapes, turns of direction and halves of a pair become `\\n`,
    `\\x1b` and the like, so that a name can forge no line of a log and no text of a page.
    """
    if text.isprintable():  # which none of them is
        return text
    return "".join(
        char.encode("unicode_escape").decode()
        if char in _TURNS or unicodedata.category(char) in _BREAKS
        else char
        for char in text
    )


class PipelineError(Exception):
    """A failure a person can act on.

    Args:
        problem: what was found and what was expected, in numbers where there are any; or, without
            a remedy, the whole message of such an error. Prefect keeps no more of an exception.
        remedy: an order that names the field, file or setting to change.
    """

    code: str = "UNKNOWN_ERROR"
    """Stable name; never renamed once released. Of the class, except where others' are told."""
    transient: ClassVar[bool] = False
    """True when the same call may succeed a moment later; only these are retried."""
    charged: bool = False
    """Whether the request that failed may have been charged; no other engine is asked then."""

    def __init__(self, problem: str, remedy: str | None = None) -> None:
        said = None if remedy is not None else _SAID.fullmatch(problem)
        self.problem = redacted(one_line(said[1] if said else problem))
        self.remedy = redacted(one_line(said[2] if said else remedy or NO_REMEDY))
        super().__init__(self.problem, self.remedy)  # positional: survives pickling

    def __str__(self) -> str:
        """One line: code, problem, fix."""
        return f"[{self.code}] {self.problem}. Fix: {self.remedy}."


class UnknownError(PipelineError):
    """Something no other code describes."""

    code = "UNKNOWN_ERROR"


class PictureRefusedError(UnknownError):
    """What was drawn is no picture, or lacks what was asked for: blank, no numbers, no face."""


class AuthMissingError(PipelineError):
    """A key or token is needed and none is set."""

    code = "AUTH_MISSING"


class AuthInvalidError(PipelineError):
    """The other side refused the key or token."""

    code = "AUTH_INVALID"


class ContractMismatchError(PipelineError):
    """The request does not fit the contract: unknown stage or field, cycle, wrong media kind."""

    code = "CONTRACT_MISMATCH"


class MissingRequiredFieldError(PipelineError):
    """A field without a default was left out."""

    code = "MISSING_REQUIRED_FIELD"


class InvalidFieldValueError(PipelineError):
    """A field holds a value outside its limits."""

    code = "INVALID_FIELD_VALUE"


class InvalidMediaError(InvalidFieldValueError):
    """A file is not the picture, video or sound its name or field says."""


class DependencyMissingError(PipelineError):
    """A package, program or model that the request needs is not installed."""

    code = "DEPENDENCY_MISSING"


class EngineOfflineError(PipelineError):
    """An engine or server does not answer."""

    code = "ENGINE_OFFLINE"
    transient = True


class EngineTimeoutError(PipelineError):
    """An engine answered too late."""

    code = "ENGINE_TIMEOUT"
    transient = True


class DownloadFailedError(PipelineError):
    """A download broke off."""

    code = "DOWNLOAD_FAILED"
    transient = True


class ChecksumMismatchError(PipelineError):
    """Bytes do not have the sha256 they are kept or published under."""

    code = "CHECKSUM_MISMATCH"


class ChecksumMissingError(PipelineError):
    """No sha256 is known for a file, so it cannot be trusted unseen."""

    code = "CHECKSUM_MISSING"


class LicenseUnknownError(PipelineError):
    """No licence is known for a file."""

    code = "LICENSE_UNKNOWN"


class DiskFullError(PipelineError):
    """No room is left where a file has to go."""

    code = "DISK_FULL"


class MissingFileError(PipelineError):
    """A file or artifact is not where it was said to be."""

    code = "FILE_NOT_FOUND"


class ForbiddenPathError(PipelineError):
    """A path leaves the folders it may be in, or may not be read or written."""

    code = "PERMISSION_DENIED"


class StoreUnavailableError(PipelineError):
    """The store did not answer."""

    code = "STORE_UNAVAILABLE"
    transient = True
    retry_after: float | None = None
    """Seconds that the store asks to wait before the next try."""


class OutOfMemoryError(PipelineError):
    """The device ran out of memory even at the smallest setting."""

    code = "OUT_OF_MEMORY"
    transient = True


class RateLimitExceededError(PipelineError):
    """A provider asks to slow down."""

    code = "RATE_LIMIT_EXCEEDED"
    transient = True


class ConsentMissingError(PipelineError):
    """A person's likeness is used without a recorded consent."""

    code = "CONSENT_MISSING"


class InsufficientFundsError(PipelineError):
    """The provider account cannot pay for the request."""

    code = "INSUFFICIENT_FUNDS"


class SafetyFilterError(PipelineError):
    """A provider's or model's safety filter refused the request."""

    code = "SAFETY_FILTER"


class UnsafePickleError(InvalidMediaError):
    """A weights file holds a pickle that could run code."""
