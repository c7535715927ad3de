"""The last error of each provider, kept where every process of the installation finds it."""

from contextlib import suppress
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from safelight.errors import PipelineError
from safelight.store.store import current_store

FOLDER = "cache/engines/"


class LastError(BaseModel):
    """What went wrong when an engine was asked for work."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    code: str
    """Stable name of the cause."""
    problem: str
    """What was found."""
    at: str
    """ISO 8601, UTC."""


def keep_last_error(engine_id: str, error: PipelineError) -> None:
    """Keep it in place of the one before; the error itself counts more than that it is kept."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    kept = LastError(code=error.code, problem=error.problem, at=at)
    with suppress(PipelineError):
        data = kept.model_dump_json().encode()
        current_store().backend.write(f"{FOLDER}{engine_id}.json", data, "application/json")


def last_error(engine_id: str) -> LastError | None:
    """The last error of an engine; None where there was none."""
    try:
        return LastError.model_validate_json(
            current_store().backend.read(f"{FOLDER}{engine_id}.json")
        )
    except (PipelineError, ValidationError):
        return None
