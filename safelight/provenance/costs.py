"""What runs cost, by preset, stage, character, key, schedule or day: added up from manifests."""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from safelight.errors import PipelineError
from safelight.provenance.manifest import MANIFESTS, Manifest, StageEntry, load_manifest
from safelight.provenance.usage import GPUS
from safelight.store.store import current_store


class By(StrEnum):
    """What costs are added up by."""

    PRESET = "preset"
    STAGE = "stage"
    CHARACTER = "character"
    KEY = "key"
    SCHEDULE = "schedule"
    DAY = "day"


class Cost(BaseModel):
    """What belongs together."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Of the preset, stage, ...; empty for runs that have none."""
    runs: int
    """How many runs have a part in it."""
    gpu_seconds: float
    """Seconds that stages worked on a GPU."""
    cpu_seconds: float
    """Seconds that stages worked on a CPU."""
    usd: float
    """What calls to providers cost."""


class Costs(BaseModel):
    """All costs of a time."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    by: By
    """What they are added up by."""
    total: Cost
    """All of them."""
    costs: list[Cost]
    """The dearest first; days in their order."""
    unread: int
    """Manifests that this version cannot read, and that are not counted."""


class _Sum:
    """Grows."""

    def __init__(self) -> None:
        self.runs: set[str] = set()
        self.gpu = self.cpu = self.usd = 0.0

    def add(self, run: str, entries: Iterable[StageEntry]) -> None:
        self.runs.add(run)
        for entry in entries:
            self.usd += sum(charge.usd for charge in entry.charges)
            if entry.status != "done":
                continue  # what came from the cache took no time now
            if entry.engine.device_class in GPUS:
                self.gpu += entry.seconds
            elif entry.engine.device_class == "cpu":
                self.cpu += entry.seconds

    def cost(self, name: str) -> Cost:
        return Cost(
            name=name,
            runs=len(self.runs),
            gpu_seconds=round(self.gpu, 3),
            cpu_seconds=round(self.cpu, 3),
            usd=round(self.usd, 6),
        )


def costs_of(by: By, since: date | None = None, until: date | None = None) -> Costs:
    """What the runs that the store knows cost.

    Args:
        by: what is added up.
        since: first day (UTC) on which runs ended; None is the first of all.
        until: last day; None is today.
    """
    groups: dict[str, _Sum] = {}
    whole, unread = _Sum(), 0
    for found in _manifests():
        if found is None:
            unread += 1
            continue
        day = datetime.fromisoformat(found.ended).astimezone(UTC).date()
        if found.part_of or (since and day < since) or (until and day > until):
            continue  # stages of a part stand in the manifest of the whole too
        whole.add(found.flow_run_id, found.stages)
        if by is By.STAGE:
            for entry in found.stages:
                groups.setdefault(entry.stage_type, _Sum()).add(found.flow_run_id, [entry])
        else:
            groups.setdefault(_name(by, found, day), _Sum()).add(found.flow_run_id, found.stages)
    costs = [one.cost(name) for name, one in groups.items()]
    if by is By.DAY:
        costs.sort(key=lambda one: one.name)
    else:
        costs.sort(key=lambda one: (-one.usd, -one.gpu_seconds, -one.cpu_seconds, one.name))
    return Costs(by=by, total=whole.cost("all"), costs=costs, unread=unread)


def _name(by: By, manifest: Manifest, day: date) -> str:
    if by is By.PRESET:
        return manifest.flow
    if by is By.CHARACTER:
        named = manifest.parameters.get("character")
        return named if isinstance(named, str) else ""
    if by is By.KEY:
        return manifest.asked_by
    return manifest.schedule if by is By.SCHEDULE else day.isoformat()


def _manifests() -> Iterator[Manifest | None]:
    """All manifests; None for one that cannot be read."""
    store = current_store()
    for key in store.backend.list(MANIFESTS):
        if "/" in key.removeprefix(MANIFESTS) or not key.endswith(".json"):
            continue  # records that lead to manifests
        try:
            yield load_manifest(key, store)
        except PipelineError:  # of a later version, or damaged
            yield None
