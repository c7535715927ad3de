"""What stages did, told once each: counted for the worker's metrics, traced where that is on."""

import threading
from typing import Literal

from pydantic import BaseModel, ConfigDict

from safelight.observing.tracing import stage_span

Status = Literal["done", "cached", "failed", "cancelled"]
MOST = 10_000
"""Stages that wait to be told; a process whose worker does not listen keeps no more."""
_lock = threading.Lock()
_waiting: list["StageDone"] = []


class StageDone(BaseModel):
    """One stage that ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    """Name of the stage."""
    status: Status
    """How it ended; cached means that an earlier result was taken."""
    engine: str
    """Which did the work."""
    seconds: float = 0.0
    """Wall time; 0 where it did none."""
    usd: float = 0.0
    """What its calls to providers cost."""


def stage_ended(entry: str, done: StageDone, code: str = "") -> None:
    """Tell of a stage.

    Args:
        entry: what the pipeline calls it.
        done: how it ended.
        code: of the error it failed with.
    """
    stage_span(entry, done.seconds, done.model_dump(exclude={"seconds"}), code)
    with _lock:
        if len(_waiting) < MOST:
            _waiting.append(done)


def take_ended() -> list[StageDone]:
    """All that were told of since the last call."""
    with _lock:
        taken = _waiting.copy()
        _waiting.clear()
    return taken
