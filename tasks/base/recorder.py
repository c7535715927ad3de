"""What the current flow run has done so far: one entry a stage, and the progress people see."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Lock
from typing import Literal

from pydantic import JsonValue

from safelight.engines.identity import EngineIdentity, PassedOver
from safelight.errors import PipelineError
from safelight.observing.stages import StageDone, stage_ended
from safelight.prompts.unfolded import Unfolded
from safelight.provenance.charges import Charge, total
from safelight.provenance.consent import ConsentRecord
from safelight.provenance.manifest import StageEntry
from safelight.provenance.record import Origin
from safelight.store.artifact import ArtifactRef

Status = Literal["done", "cached", "failed", "cancelled"]
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class StageFacts:
    """One finished stage."""

    stage_type: str
    """Name of the stage."""
    name: str
    """What the pipeline calls it; the stage's own name in a preset."""
    status: Status
    """How it ended; cached means that an earlier run's result was taken."""
    parameters: dict[str, JsonValue]
    """Its parameters, defaults included."""
    identity: EngineIdentity
    """The engine that did the work."""
    origin: Origin
    """What the stage does to pixels."""
    passed_over: tuple[PassedOver, ...] = ()
    """Engines that were asked before it, and why they did not serve."""
    sources: tuple[ArtifactRef, ...] = ()
    """What it read."""
    results: tuple[ArtifactRef, ...] = ()
    """What it made."""
    error: PipelineError | None = None
    """Why it failed, where it failed in a way we know."""
    charges: tuple[Charge, ...] = ()
    """What its calls to providers cost."""

    @property
    def done(self) -> StageDone:
        """What is counted of it."""
        told = self.results[0].metadata.get("seconds") if self.results else None
        return StageDone(
            stage=self.stage_type,
            status=self.status,
            engine=self.identity.engine_id,
            seconds=told if isinstance(told, int | float) and self.status == "done" else 0.0,
            usd=0.0 if self.status == "cached" else total(self.charges),
        )


@dataclass
class Recorder:
    """Collects the facts of one flow run; stages of parallel branches enter theirs from threads."""

    report: Report | None = None
    """Called with stage, done and total at each step."""
    run_id: str = ""
    """Names the run's manifest; empty where there is none."""
    view: Callable[[bytes], None] | None = None
    """Called with a small picture of what a stage is making."""
    begun: Callable[[str], None] | None = None
    """Called with the name of a stage that begins its work."""
    added: Callable[[int], None] | None = None
    """Called with how many stages are finished when another one is."""
    remark: str = ""
    """What the running stage says of its progress besides, such as the loss of a training."""
    engines: tuple[str, ...] = ()
    """The preset's engines, the preferred first."""
    expected_stages: int = 1
    """How many stages the run will have, for its percentage."""
    parts_done: int = 0
    """Finished flows that the run called as parts of itself; each counts as a stage."""
    facts: list[StageFacts] = field(default_factory=list[StageFacts])
    """In the order the stages finished."""
    part_stages: list[StageEntry] = field(default_factory=list[StageEntry])
    """Stages of flows that the run called as parts of itself, before its own."""
    inputs: dict[str, ArtifactRef] = field(default_factory=dict[str, ArtifactRef])
    """Media the run was given, by the name of the parameter."""
    unfolded: list[Unfolded] = field(default_factory=list[Unfolded])
    """Prompts of the run that held choices."""
    consent: ConsentRecord | None = None
    """To the use of a person's likeness, where the run was given one."""
    answer: dict[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    """What the flow adds to the `data` of its result."""
    look: Callable[[tuple[ArtifactRef, ...]], None] | None = None
    """Called with what the flow gives before it counts; what it raises fails the run."""
    _lock: Lock = field(default_factory=Lock)

    def add(self, facts: StageFacts) -> None:
        """Enter a finished stage."""
        with self._lock:
            self.facts.append(facts)
            if self.added is not None:
                self.added(len(self.facts))
        stage_ended(facts.name, facts.done, facts.error.code if facts.error else "")

    def stage_listener(self, stage: str) -> Callable[[int, int], None] | None:
        """What a running stage calls at each step; None when no one watches."""
        report = self.report
        if self.begun is not None:
            self.begun(stage)
        if report is None:
            return None
        return lambda done, total: report(stage, done, total)


_avoided: ContextVar[frozenset[str]] = ContextVar("avoided", default=frozenset())
_current: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


def recorder() -> Recorder:
    """The recorder of the current run; outside of one, a throwaway that no one reads."""
    return _current.get() or Recorder()


@contextmanager
def recording(report: Report | None = None, expected_stages: int = 1) -> Generator[Recorder]:
    """Collect the facts of all stages that run inside."""
    mine = Recorder(report=report, expected_stages=expected_stages)
    token = _current.set(mine)
    try:
        yield mine
    finally:
        _current.reset(token)


@contextmanager
def unseen() -> Generator[None]:
    """Show nobody what the stages inside make: it may be refused yet."""
    mine = recorder()
    view, mine.view = mine.view, None
    try:
        yield
    finally:
        mine.view = view


def avoided_engines() -> frozenset[str]:
    """Engines that are asked only where no other one of this process can serve."""
    return _avoided.get()


@contextmanager
def avoiding(engine_ids: frozenset[str]) -> Generator[None]:
    """Have all stages that run inside ask other engines first."""
    token = _avoided.set(engine_ids)
    try:
        yield
    finally:
        _avoided.reset(token)
