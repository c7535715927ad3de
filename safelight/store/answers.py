"""What the answer of an S3 service means: whether it passes, and what to do when it stays.

The only place that decides so. A code says more than a status: services give `400 RequestTimeout`
for a slow line and `403 RequestTimeTooSkewed` for a wrong clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from safelight.errors import (
    AuthInvalidError,
    ChecksumMismatchError,
    DiskFullError,
    ForbiddenPathError,
    InvalidFieldValueError,
    MissingFileError,
    PipelineError,
    StoreUnavailableError,
)

LONGEST_SENTENCE = 300
"""Characters of what the service says that an error repeats."""
LONGEST_PAUSE_SECONDS = 300.0
"""A longer `Retry-After` is cut to this."""


@dataclass(frozen=True)
class Rule:
    """Answers of one meaning."""

    meaning: str
    """What the error says; `{key}` and `{bucket}` are filled in."""
    error: type[PipelineError]
    """Its class: whether it passes, and its code."""
    remedy: str
    """What to do."""
    codes: tuple[str, ...] = ()
    """Codes in the body of the answer; one that ends with `*` stands for all that begin so."""
    statuses: tuple[int, ...] = ()
    """Statuses that mean it when no rule knows the code; 0 is an answer without one."""


PASSING = Rule(
    "it could not take {key} now",
    StoreUnavailableError,
    "look at the S3 service, then run the flow again",
    (
        "BandwidthLimitExceeded",
        "Busy",
        "ClientDisconnected",
        "ConditionalRequestConflict",
        "EC2ThrottledException",
        "IncompleteBody",
        "InternalError",
        "KMS.Throttling*",
        "NoSuchUpload",  # a service that started again has forgotten the parts
        "OperationAborted",
        "PreconditionFailed",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled*",
        "RequestTimeout*",
        "ServerBusy",
        "ServiceUnavailable",
        "SlowDown*",
        "Throttl*",
        "TooManyRequests*",
        "TransactionInProgressException",
        "XMinioServerNotInitialized",
    ),
    (0, 408, 409, 412, 425, 429, 499, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529),
)
RULES = (
    Rule(
        "there is no room for {key}",
        DiskFullError,
        "free space there, or raise the quota",
        ("InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuota*"),
        (507,),
    ),
    Rule(
        "there is no bucket {bucket}",
        MissingFileError,
        "create the bucket, or correct SAFELIGHT_STORE",
        ("NoSuchBucket",),
    ),
    PASSING,
    Rule(
        "nothing is stored under {key}",
        MissingFileError,
        "check the artifact's uri",
        ("NoSuchKey", "NotFound"),
        (404,),
    ),
    Rule(
        "the clocks differ",
        AuthInvalidError,
        "set this machine's clock",
        ("RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"),
    ),
    Rule(
        "the temporary keys have ended",
        AuthInvalidError,
        "renew the temporary keys and their session token",
        ("ExpiredToken*", "InvalidToken", "TokenRefreshRequired"),
    ),
    Rule(
        "it may not use the encryption key",
        ForbiddenPathError,
        "correct SAFELIGHT_S3_KMS_KEY, or let these keys use it",
        ("KMS.*", "InvalidEncryptionAlgorithmError"),
    ),
    Rule(
        "it refused the keys",
        AuthInvalidError,
        "correct SAFELIGHT_S3_ACCESS_KEY and SAFELIGHT_S3_SECRET_KEY and their rights",
        (
            "AccessDenied",
            "AccountProblem",
            "AllAccessDisabled",
            "InvalidAccessKeyId",
            "InvalidSecurity",
            "NotSignedUp",
            "SignatureDoesNotMatch",
        ),
        (401, 403),
    ),
    Rule(
        "it received other bytes for {key} than were sent",
        ChecksumMismatchError,
        "run the flow again; when it comes again, look at what lies between",
        ("BadDigest", "XAmzContentSHA256Mismatch", "InvalidDigest"),
    ),
    Rule(
        "the bucket {bucket} lies elsewhere",
        InvalidFieldValueError,
        "correct SAFELIGHT_S3_REGION and SAFELIGHT_S3_ENDPOINT_URL",
        (
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraintException",
            "PermanentRedirect",
            "TemporaryRedirect",
        ),
        (301, 302, 307, 308),
    ),
    Rule(
        "it cannot do what was asked for {key}",
        ForbiddenPathError,
        "do what it says, or take another service",
        ("NotImplemented", "XNotImplemented"),
        (501, 505),
    ),
)
"""The first that knows the code decides, else the first that knows the status."""
OTHER = Rule("it refused {key}", ForbiddenPathError, "check bucket, region and rights", statuses=())
"""Any other answer."""


def rule_for(status: int, code: str) -> Rule:
    """What an answer means.

    Args:
        status: of HTTP; 0 when there was none.
        code: from the body; what botocore puts there for an answer without one, the status, is
            no code.
    """
    for rule in RULES:
        if any(_fits(code, known) for known in rule.codes):
            return rule
    for rule in RULES:
        if status in rule.statuses:
            return rule
    return PASSING if status >= 500 else OTHER


def error_of(where: str, bucket: str, key: str, response: Mapping[str, Any]) -> PipelineError:
    """The error for an answer that refuses.

    Args:
        where: bucket and service, for the message.
        bucket: its name.
        key: what was asked for.
        response: botocore's description of the answer.
    """
    said = response.get("Error", {})
    facts = response.get("ResponseMetadata", {})
    status, code = int(facts.get("HTTPStatusCode") or 0), str(said.get("Code", "?"))
    rule = rule_for(status, code)
    meaning = rule.meaning.format(bucket=bucket, key=key or "the bucket")
    answered = f"{status} {code}" if code != str(status) else str(status)
    sentence = _sentence(str(said.get("Message") or ""))
    error = rule.error(
        f"{where} answered {answered}: {meaning}{f' ({sentence})' if sentence else ''}",
        rule.remedy,
    )
    if isinstance(error, StoreUnavailableError):
        error.retry_after = retry_after(facts.get("HTTPHeaders", {}).get("retry-after"))
    return error


def retry_after(header: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks to wait: a number, or a moment; None without one."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            moment = parsedate_to_datetime(header)
        except ValueError:
            return None
        known = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (known - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_PAUSE_SECONDS) if seconds == seconds else None


def _fits(code: str, known: str) -> bool:
    return code.startswith(known[:-1]) if known.endswith("*") else code == known


def _sentence(message: str) -> str:
    """What the service says, on one line."""
    shown = "".join(c if c.isprintable() else " " for c in message)
    line = " ".join(shown.split()).rstrip(".")
    return line if len(line) <= LONGEST_SENTENCE else f"{line[:LONGEST_SENTENCE]}..."
