"""Stages as one bar that means the same everywhere: as wide as the time each takes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from safelight.gallery.rows import Ran, StageTime
from safelight.gateway.jobs import Job, Status

Look = Literal["done", "cached", "now", "bad", "todo"]
WIDE = 1000.0
"""Units of the whole bar."""
GAP = 8.0
"""Between two stages."""
LEAST = 12.0
"""Units of a stage that takes no time at all."""
_STEP = re.compile(r"(\d+) of (\d+)")


@dataclass(frozen=True)
class Piece:
    """One stage of a bar."""

    name: str
    look: Look
    x: float
    width: float
    share: float
    """How much of it is done, 0 to 1."""
    seconds: float | None
    """What it took, or will take."""


def bar_of(job: Job, ran: Ran | None, expected: Sequence[StageTime]) -> list[Piece]:
    """The bar of a job.

    Args:
        job: as the server says.
        ran: what it left; None while it goes on.
        expected: stages of an earlier run of the same kind.
    """
    if ran is not None and ran.stages and job.status not in (Status.QUEUED, Status.RUNNING):
        stages = list(ran.stages)
        looks: list[Look] = [_look(stage.status) for stage in stages]
        if job.status is Status.FAILED and "bad" not in looks:
            stages.append(StageTime("", 0.0, "failed"))
            looks.append("bad")
        return _laid(stages, looks, [1.0] * len(stages))
    if job.status is Status.SUCCEEDED:
        return _laid([StageTime("", 1.0, "done")], ["done"], [1.0])
    if job.status in (Status.FAILED, Status.CANCELLED):
        look: Look = "bad" if job.status is Status.FAILED else "todo"
        return _laid([StageTime("", 1.0, "")], [look], [1.0])
    return _going(job, expected)


def _going(job: Job, expected: Sequence[StageTime]) -> list[Piece]:
    name = job.stage.partition(":")[0].strip()
    known = [stage.name for stage in expected]
    if name not in known:
        look: Look = "now" if job.status is Status.RUNNING else "todo"
        stages = [StageTime(name, 1.0, "")] if not known or name else list(expected)
        looks: list[Look] = [look if len(stages) == 1 else "todo"] * len(stages)
        return _laid(stages, looks, [job.progress / 100] * len(stages))
    at = known.index(name)
    step = _STEP.search(job.stage)
    share = int(step[1]) / max(1, int(step[2])) if step else 0.0
    looks = [("done" if i < at else "now" if i == at else "todo") for i in range(len(known))]
    return _laid(list(expected), looks, [1.0 if i < at else share for i in range(len(known))])


def _look(status: str) -> Look:
    known: dict[str, Look] = {"done": "done", "cached": "cached", "failed": "bad"}
    return known.get(status, "todo")


def _laid(stages: list[StageTime], looks: Sequence[Look], shares: Sequence[float]) -> list[Piece]:
    whole = sum(stage.seconds for stage in stages)
    room = WIDE - GAP * (len(stages) - 1)
    least = min(LEAST, room / len(stages))
    free = room - least * len(stages)
    pieces: list[Piece] = []
    x = 0.0
    for stage, look, share in zip(stages, looks, shares, strict=True):
        part = stage.seconds / whole if whole else 1 / len(stages)
        width = least + part * free
        took = None if not stage.name else stage.seconds
        pieces.append(Piece(stage.name, look, round(x, 1), round(width, 1), share, took))
        x += width + GAP
    return pieces
