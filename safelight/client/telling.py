"""The events by which a run tells how far it is, beside those of its states that Prefect sends."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from prefect.events import Event
from pydantic import BaseModel, ConfigDict, Field, ValidationError

EVENT = "safelight.flow-run.progress"
RESOURCE = "prefect.flow-run."
LARGEST_PREVIEW = 8_000
"""Characters of a preview as a data: URI."""
MOST_STAGES = 50
"""Stages that one event names, the latest."""


class ToldStage(BaseModel):
    """A stage that began or ended."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(max_length=200)
    """What the run calls it."""
    stage_type: str = Field(max_length=200)
    """Which stage it is."""
    status: Literal["began", "done", "cached", "failed", "cancelled"]
    """What became of it."""


class Told(BaseModel):
    """One event."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    number: int = Field(ge=1, le=10**9)
    """From 1, without gaps, within a try."""
    attempt: int = Field(alias="try", ge=0, le=10**6)
    """Which try of the run."""
    percent: float = Field(ge=0, le=100, allow_inf_nan=False)
    """Of the run."""
    text: str = Field(default="", max_length=2000)
    """Stage and step, for people."""
    stage: str = Field(default="", max_length=200)
    """Stage that works."""
    step: int = Field(default=0, ge=0)
    """Steps of it that are done."""
    steps: int = Field(default=0, ge=0)
    """Steps that it has."""
    eta_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """When the run will probably end."""
    stages: tuple[ToldStage, ...] = Field(default=(), max_length=MOST_STAGES)
    """Stages that began or ended since the event before."""
    preview: str | None = Field(
        default=None, max_length=LARGEST_PREVIEW, pattern=r"^data:image/webp;base64,[\w+/=]+$"
    )
    """What is being made."""
    last: bool = False
    """Whether the try tells nothing more."""


def resource_of(flow_run_id: UUID) -> dict[str, str]:
    """The resource of a run, as Prefect has it."""
    return {"prefect.resource.id": f"{RESOURCE}{flow_run_id}"}


def run_of(event: Event) -> UUID | None:
    """The run that an event is about."""
    name = event.resource.id
    try:
        return UUID(name.removeprefix(RESOURCE)) if name.startswith(RESOURCE) else None
    except ValueError:
        return None


def told_by(event: Event) -> tuple[Told, datetime] | None:
    """What an event of a run tells, and when; None where it is none of ours."""
    if event.event != EVENT:
        return None
    try:
        return Told.model_validate(event.payload), event.occurred
    except ValidationError:  # whoever can reach the server can send events
        return None
