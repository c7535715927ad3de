"""What listeners of a job are told: events, their ids, and how they are framed."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from safelight.gateway.jobs import Status
from safelight.gateway.trail import LogLine
from safelight.provenance.manifest import Failure

Kind = Literal["progress", "stage", "preview", "log", "complete"]
PLAIN: frozenset[Kind] = frozenset({"progress", "complete"})
"""Kinds that every listener is told."""
USUAL: frozenset[Kind] = frozenset({*PLAIN, "stage", "preview"})
_ID = re.compile(r"(\d{1,6})\.(\d{1,6})\.(\d{1,9})\.(\d{1,3})\.(\d{1,17})")


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    job_id: UUID
    """Which job."""
    correlation_id: str
    """Of the request that listens."""
    at: datetime | None
    """When it came to this."""


class JobEvent(_Event):
    """`progress` and `complete`: how the job stands."""

    status: Status
    """How the job stands."""
    state: str
    """The same in Prefect's words."""
    progress: float
    """0 to 100."""
    stage: str
    """Stage and step it has reached."""
    step: int | None = None
    """Steps of the stage that are done."""
    steps: int | None = None
    """Steps that the stage has."""
    eta_seconds: float | None = None
    """When it will probably have ended."""
    message: str
    """What the state says."""
    error: Failure | None
    """Why it failed."""


class StageEvent(_Event):
    """`stage`: one began or ended."""

    name: str
    """What the job calls it."""
    stage_type: str
    """Which stage it is."""
    status: str
    """began, done, cached, failed, cancelled."""


class PreviewEvent(_Event):
    """`preview`: what is being made."""

    picture: str
    """A small WebP as a data: URI."""


class LogEvent(_Event):
    """`log`: a line of the job's log."""

    id: UUID
    """Of the line; after a broken connection the last ones may come twice."""
    line: LogLine
    """What it says."""


@dataclass(frozen=True, order=True)
class Told:
    """What a listener knows: the id of the last event that it got."""

    states: int = 0
    """How many of the job's states."""
    attempt: int = 0
    """Of the try that told something last."""
    number: int = 0
    """Of what it told."""
    part: int = 0
    """How much of that, where it held several things."""
    log: int = 0
    """Up to when the log is known: microseconds since 1970."""

    def __str__(self) -> str:
        """As event id."""
        return f"{self.states}.{self.attempt}.{self.number}.{self.part}.{self.log}"

    @classmethod
    def read(cls, event_id: str | None) -> "Told":
        """That of an event id; nothing where it is none of ours."""
        found = _ID.fullmatch(event_id or "")
        return cls(*(int(each) for each in found.groups())) if found else cls()

    @property
    def place(self) -> tuple[int, int, int]:
        """In what the tries told."""
        return self.attempt, self.number, self.part


@dataclass(frozen=True)
class Heard:
    """One event."""

    kind: Kind
    """Its name."""
    told: Told
    """Its id."""
    event: JobEvent | StageEvent | PreviewEvent | LogEvent
    """Its data."""

    @property
    def framed(self) -> bytes:
        """As server-sent events have it."""
        data = self.event.model_dump_json()
        return f"id: {self.told}\nevent: {self.kind}\ndata: {data}\n\n".encode()


def stream_schema(data: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the description of the gateway says of a stream; data without a schema are any text."""
    text: dict[str, Any] = {"type": "string"}
    json = {"contentMediaType": "application/json", "contentSchema": data}
    told = text if data is None else text | json
    return {"type": "object", "properties": {"id": text, "event": text, "data": told}}
