"""What a run will take and cost: known from earlier runs of the same kind."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from pydantic import JsonValue

from safelight.gallery.index import Index
from safelight.gallery.rows import Ran, StageTime
from safelight.gateway.page.rendering import money, seconds
from safelight.gateway.page.words import say

TELLING = (
    "quality", "quality_preset", "width", "height", "num_images", "steps", "use_upscale",
    "use_facedetailer", "model", "target_fps", "duration",
)  # fmt: skip
"""Parameters that decide how long a run takes; the last ones are given up first."""
ENOUGH = 20
"""Runs that are looked at."""


@dataclass(frozen=True)
class Estimate:
    """What is expected."""

    seconds: float | None
    """None where nothing like it has run."""
    usd: float
    runs: int
    """How many runs it is taken from."""
    exactly: bool
    """Whether they had the same size, steps and quality."""
    stages: tuple[StageTime, ...] = ()
    """Of the latest of them."""

    @property
    def said(self) -> str:
        """For people."""
        if self.seconds is None:
            return say("estimate.none")
        key = "estimate.same" if self.exactly else "estimate.like"
        return say(
            key, span=seconds(self.seconds, rough=True), runs=self.runs, cost=money(self.usd)
        )


def estimate(index: Index, flow: str, parameters: Mapping[str, JsonValue]) -> Estimate:
    """What a run with these parameters will take and cost.

    Args:
        index: of earlier runs.
        flow: of the run.
        parameters: those that are given; others have their defaults.
    """
    earlier = index.alike(flow)
    if not earlier:
        return Estimate(None, 0.0, 0, exactly=False)
    for count in range(len(TELLING), -1, -1):
        names = TELLING[:count]
        alike = [run for run in earlier if _same(run, parameters, names)]
        if alike:
            some = alike[:ENOUGH]
            return Estimate(
                median(run.seconds for run in some),
                median(run.cost for run in some),
                len(some),
                exactly=count == len(TELLING),
                stages=some[0].stages,
            )
    return Estimate(None, 0.0, 0, exactly=False)


def _same(run: Ran, parameters: Mapping[str, JsonValue], names: tuple[str, ...]) -> bool:
    """Whether a run had these parameters; manifests hold the defaults too, requests need not."""
    return all(
        name not in parameters or run.parameters.get(name) == parameters[name] for name in names
    )
