"""What the current flow run has done so far: one entry a stage, and the progress people see."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from prefect.states import State
from pydantic import JsonValue

from safelight.errors import PipelineError
from safelight.params import Params
from safelight.store.artifact import ArtifactRef


@dataclass(frozen=True)
class StageFacts:
    """One finished stage."""

    stage: str
    """Name of the stage."""
    status: str
    """`done`, `cached` or `failed`."""
    parameters: dict[str, JsonValue]
    """Its parameters, defaults included."""
    results: tuple[ArtifactRef, ...] = ()
    """What it made."""
    error: str | None = None
    """Its error as people read it; None when it worked."""

    @classmethod
    def of(cls, stage: str, state: State[Any], params: Params | None) -> "StageFacts":
        """Read a finished task's state."""
        parameters = {} if params is None else params.model_dump(mode="json")
        result = state.result(raise_on_failure=False)
        if isinstance(result, BaseException):
            text = str(result) if isinstance(result, PipelineError) else repr(result)
            return cls(stage, "failed", parameters, error=text)
        refs = tuple(result) if isinstance(result, list) else (result,)
        return cls(stage, "cached" if state.name == "Cached" else "done", parameters, refs)


@dataclass
class Recorder:
    """Collects the facts of one flow run."""

    facts: list[StageFacts] = field(default_factory=list[StageFacts])
    """In the order the stages finished."""
    report: Callable[[str, int, int], None] | None = None
    """Called with stage, done and total at each step."""

    def add(self, facts: StageFacts) -> None:
        """Enter a finished stage."""
        self.facts.append(facts)

    def stage_listener(self, stage: str) -> Callable[[int, int], None] | None:
        """What a running stage calls at each step; None when no one watches."""
        report = self.report
        if report is None:
            return None
        return lambda done, total: report(stage, done, total)


_current: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


def recorder() -> Recorder:
    """The recorder of the current run; outside of one, a throwaway that no one reads."""
    return _current.get() or Recorder()


@contextmanager
def recording(report: Callable[[str, int, int], None] | None = None) -> Iterator[Recorder]:
    """Collect the facts of all stages that run inside."""
    mine = Recorder(report=report)
    token = _current.set(mine)
    try:
        yield mine
    finally:
        _current.reset(token)
