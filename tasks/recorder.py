"""What the current flow run has done so far: one entry a stage, and the progress people see."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Literal

from prefect.client.schemas.objects import State
from pydantic import JsonValue

from safelight.engines.identity import EngineIdentity
from safelight.errors import PipelineError
from safelight.params import Params
from safelight.progress import StopRequestedError
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
    sources: tuple[ArtifactRef, ...] = ()
    """What it read."""
    results: tuple[ArtifactRef, ...] = ()
    """What it made."""
    error: PipelineError | None = None
    """Why it failed, where it failed in a way we know."""


@dataclass
class Recorder:
    """Collects the facts of one flow run; stages of parallel branches enter theirs from threads."""

    report: Report | None = None
    """Called with stage, done and total at each step."""
    expected_stages: int = 1
    """How many stages the run will have, for its percentage."""
    facts: list[StageFacts] = field(default_factory=list[StageFacts])
    """In the order the stages finished."""
    inputs: dict[str, ArtifactRef] = field(default_factory=dict[str, ArtifactRef])
    """Media the run was given, by the name of the parameter."""
    answer: dict[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    """What the flow adds to the `data` of its result."""
    _lock: Lock = field(default_factory=Lock)

    def add(self, facts: StageFacts) -> None:
        """Enter a finished stage."""
        with self._lock:
            self.facts.append(facts)

    def stage_listener(self, stage: str) -> Callable[[int, int], None] | None:
        """What a running stage calls at each step; None when no one watches."""
        report = self.report
        if report is None:
            return None
        return lambda done, total: report(stage, done, total)


def facts_of(
    stage_type: str,
    name: str,
    state: State[Any],
    params: Params,
    identity: EngineIdentity,
    sources: Sequence[ArtifactRef],
) -> StageFacts:
    """Read a finished task's state."""
    status: Status = "cached" if state.name == "Cached" else "done"
    results: tuple[ArtifactRef, ...] = ()
    error: PipelineError | None = None
    if state.is_cancelled():
        status = "cancelled"
    else:
        outcome = state.result(raise_on_failure=False)
        if isinstance(outcome, BaseException):
            status = "cancelled" if isinstance(outcome, StopRequestedError) else "failed"
            error = outcome if isinstance(outcome, PipelineError) else None
        else:
            results = tuple(outcome) if isinstance(outcome, list) else (outcome,)
    return StageFacts(
        stage_type=stage_type,
        name=name,
        status=status,
        parameters=params.model_dump(mode="json"),
        identity=identity,
        sources=tuple(sources),
        results=results,
        error=error,
    )


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
