"""What is known of a job at a provider, kept before anything is sent."""

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from safelight.errors import MissingFileError, PipelineError
from safelight.provenance.charges import Charge
from safelight.store.store import current_store

FOLDER = "cache/jobs/"
State = Literal["sending", "taken", "done", "failed"]


class Told(BaseModel):
    """An error as it is kept, to be raised again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    problem: str
    remedy: str


class EndedJobError(PipelineError):
    """A job that failed before, and may have been charged: it is not sent again. Its code is that
    of the failure."""

    def __init__(
        self, problem: str, remedy: str | None = None, code: str = PipelineError.code
    ) -> None:
        super().__init__(problem, remedy)
        self.code = code
        self.charged = True
        self.args = (*self.args, code)  # positional: survives pickling


class JobRecord(BaseModel):
    """One job, as the next process finds it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    key: str
    """Where the store keeps it."""
    engine_id: str
    """Whose."""
    model: str
    """What the provider calls its model."""
    task: str
    """Our own id of it."""
    attempt: int = 0
    """How often the same work had failed for nothing before."""
    state: State = "sending"
    """sending: it may or may not have arrived; taken: the provider has told its id."""
    remote_id: str = ""
    """The provider's id."""
    urls: dict[str, str] = {}
    """Where the provider wants to be asked for it."""
    sent: JsonValue = None
    """What is sent, where it must be the same when it is sent again."""
    begun: float
    """When it was first sent, in seconds since 1970."""
    run: str
    """Who pays."""
    day: str
    """On which day."""
    estimated_usd: float
    """Expected cost."""
    charged_usd: float | None = None
    """What it did cost."""
    failure: Told | None = None
    """Why it failed, where it may have been charged."""

    def keep(self) -> "JobRecord":
        """Put it into the store; durable when this returns."""
        data = self.model_dump_json(exclude_defaults=True).encode()
        current_store().backend.write(self.key, data, "application/json")
        return self

    def but(self, **changes: object) -> "JobRecord":
        """The same with some fields changed."""
        return self.model_copy(update=changes)

    @property
    def charge(self) -> Charge:
        """What it costs, as manifests have it."""
        return Charge(
            engine_id=self.engine_id,
            task=self.task,
            remote_id=self.remote_id,
            model=self.model,
            estimated_usd=self.estimated_usd,
            charged_usd=self.charged_usd,
        )


def key_of_job(engine_id: str, name: str) -> str:
    """Where the record of a job stands."""
    digest = hashlib.sha256(f"{engine_id}\n{name}".encode()).hexdigest()
    return f"{FOLDER}{engine_id}/{digest[:2]}/{digest}.json"


def kept_job(key: str) -> JobRecord | None:
    """The record of a job; None where there is none.

    Raises:
        PipelineError: the store does not answer.
    """
    try:
        return JobRecord.model_validate_json(current_store().backend.read(key))
    except (MissingFileError, ValidationError):
        return None


def drop_job(record: JobRecord) -> None:
    """Forget a job of which nothing has arrived."""
    current_store().backend.delete(record.key)
