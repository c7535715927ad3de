"""The one error tree: every failure has a code, what was found, and what to do next."""

from typing import ClassVar


class PipelineError(Exception):
    """A failure a person can act on.

    Args:
        problem: what was found and what was expected, in numbers where there are any.
        remedy: an order that names the field, file or setting to change.
    """

    code: ClassVar[str] = "UNKNOWN_ERROR"
    """Stable name; never renamed once released."""
    transient: ClassVar[bool] = False
    """True when the same call may succeed a moment later; only these are retried."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)  # positional: survives pickling between processes
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        """One line: code, problem, fix."""
        return f"[{self.code}] {self.problem}. Fix: {self.remedy}."


class UnknownError(PipelineError):
    """Something no other code describes."""

    code = "UNKNOWN_ERROR"


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
