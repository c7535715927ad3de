"""What a worker and its warm processes say to each other: one JSON object a line."""

import socket
from collections.abc import Iterator
from typing import Annotated, Literal
from uuid import UUID

from prefect.client.schemas.objects import FlowRun
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from safelight.observing.stages import StageDone
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
    worker: str = ""
    """Id of the worker that has the run; empty when nobody else can take it."""
    number: int = 0
    """Of the take-over; see `ownership`."""
    flow_run: FlowRun | None = None
    """As the worker read it; None has the process read it."""
    asked: float = 0.0
    """When it was read; see `fencing.awake`."""
    correlation: str = ""
    """Of the request that caused it, for logs; empty is the run's own id."""


class Stop(_Message):
    """Stop the flow run at its next step."""

    kind: Literal["stop"] = "stop"
    flow_run_id: UUID
    number: int = 0
    """Of the take-over that is meant; the same run may come again."""
    reason: StopReason


class Owned(_Message):
    """The server said that the run is still this worker's."""

    kind: Literal["owned"] = "owned"
    flow_run_id: UUID
    asked: float
    """When it was asked; see `fencing.awake`."""


class Ready(_Message):
    """The process has loaded what it was told to load."""

    kind: Literal["ready"] = "ready"
    seconds: float


class Memory(_Message):
    """What the process holds."""

    resident_bytes: int = 0
    """Resident memory of the process."""
    models: int = 0
    """Models it keeps loaded."""
    models_bytes: int = 0
    """Memory they take, by their own account."""
    gpu_used_bytes: int = 0
    """Of its device, by whomever."""
    gpu_total_bytes: int = 0
    """All memory of its device; 0 where it has none of its own."""


class Pulse(_Message):
    """The process lives."""

    kind: Literal["pulse"] = "pulse"
    still_seconds: float
    """Since the last step of the stage at work; 0 when there is none."""
    stages: list[StageDone] = []
    """Stages that ended since the last message."""
    memory: Memory = Memory()
    """What it holds now."""


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
    stages: list[StageDone] = []
    """Stages that ended since the last message."""


ToProcess = TypeAdapter[Run | Stop | Owned](
    Annotated[Run | Stop | Owned, Field(discriminator="kind")]
)
FromProcess = TypeAdapter[Ready | Pulse | Stale | Ended](
    Annotated[Ready | Pulse | Stale | Ended, Field(discriminator="kind")]
)


def lines_of(connection: socket.socket) -> Iterator[str]:
    """Every whole line that comes, until the other side has gone away, however it went.

    Linux tells of a reset instead of an end when the other side closed before it had read all that
    was sent to it; a process that is killed may leave half a line.
    """
    with connection.makefile("r", encoding="utf-8", errors="replace") as lines:
        try:
            for line in lines:
                if line.endswith("\n"):
                    yield line
        except OSError:
            return
