"""What a worker and its warm processes say to each other: one JSON object a line."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from safelight.progress import StopReason


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Run(_Message):
    """Run this flow run."""

    kind: Literal["run"] = "run"
    flow_run_id: UUID
    environment: dict[str, str] = {}
    """Set for the time of the run."""
    working_dir: str | None = None
    """Entered for the time of the run."""


class Stop(_Message):
    """Stop the flow run at its next step."""

    kind: Literal["stop"] = "stop"
    flow_run_id: UUID
    reason: StopReason


class Ready(_Message):
    """The process has loaded what it was told to load."""

    kind: Literal["ready"] = "ready"
    seconds: float


class Stale(_Message):
    """The code of this run changed since the process read it; nothing was run."""

    kind: Literal["stale"] = "stale"
    flow_run_id: UUID
    found: str
    """What changed."""


class Ended(_Message):
    """The flow run is over in this process."""

    kind: Literal["ended"] = "ended"
    flow_run_id: UUID
    outcome: Literal["reported", "unreported", "refused"]
    """Whether the server knows the state the run ended in; refused is a run that cannot be run."""
    problem: str = ""
    """Why not."""
    memory_bytes: int = 0
    """Resident memory of the process."""
    models_bytes: int = 0
    """Memory of the models it keeps loaded, by their own account."""


ToProcess = TypeAdapter[Run | Stop](Annotated[Run | Stop, Field(discriminator="kind")])
FromProcess = TypeAdapter[Ready | Stale | Ended](
    Annotated[Ready | Stale | Ended, Field(discriminator="kind")]
)
