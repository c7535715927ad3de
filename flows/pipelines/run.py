"""Runs a plan: every stage as soon as all that it reads is there, branches side by side."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prefect.futures import PrefectFuture, as_completed

from flows.pipelines.plan import Plan, PlannedStage
from flows.pipelines.redrawing import passing
from safelight.errors import InvalidFieldValueError, PipelineError
from safelight.store.artifact import ArtifactRef
from tasks.base.calling import Call
from tasks.base.inline import is_inline

MOST_CALLS = 2000
"""Calls of stages in one run."""
MOST_AT_ONCE = 16
"""Each is a thread; the work of stages shares the same cores and devices anyway."""
Made = dict[str, list[ArtifactRef]]
"""Name of a stage or input to what it gives."""


@dataclass(frozen=True)
class _Planned:
    stage: PlannedStage
    position: int
    arguments: tuple[ArtifactRef | list[ArtifactRef] | None, ...]


def run_plan(plan: Plan, made: Made) -> None:
    """Run all stages; what each makes is added to `made` under its name.

    A stage that reads several pictures of one stage runs once for each of them, one that takes a
    list once for all. When a stage fails, those that already run are waited for and recorded, then
    its error is raised.
    """
    waiting = list(plan.stages)
    queued: deque[_Planned] = deque()
    started = 0
    running: dict[PrefectFuture[Any], tuple[_Planned, Call]] = {}
    outcomes: dict[str, dict[int, list[ArtifactRef]]] = {}
    calls_of: dict[str, int] = {}
    first_error: PipelineError | None = None
    while ((waiting or queued) and first_error is None) or running:
        ready = [planned for planned in waiting if all(read in made for read in planned.reads)]
        waiting = [planned for planned in waiting if planned not in ready]
        calls = [call for stage in ready for call in _calls(stage, made)]
        for each in ready:
            outcomes[each.name] = {}
            calls_of[each.name] = sum(call.stage is each for call in calls)
        started += len(calls)
        if started > MOST_CALLS:
            calls, first_error = [], first_error or _too_many()
        alone = len(calls) == 1 and not running and not queued
        if (alone or is_inline()) and first_error is None:
            _one_by_one(calls, outcomes, made)
            made.update((each.name, _in_order(outcomes[each.name])) for each in ready)
            continue
        if first_error is None:
            queued.extend(calls)
            while queued and len(running) < MOST_AT_ONCE:
                planned = queued.popleft()
                future, call = planned.stage.stage.begin(*planned.arguments, planned.stage.params)
                running[future] = planned, call
        if not running:  # refused before any of them began
            break
        future = next(as_completed(list(running)))
        future.wait()  # until then its state may still read RUNNING
        planned, call = running.pop(future)
        name = planned.stage.name
        try:
            result = planned.stage.stage.finished(future.state, name, call)
        except PipelineError as error:
            first_error = first_error or error
            continue
        try:
            outcomes[name][planned.position] = _gated(planned, result, outcomes, made)
        except PipelineError as error:
            first_error = first_error or error
            continue
        if len(outcomes[name]) == calls_of[name]:
            made[name] = _in_order(outcomes[name])
    if first_error is not None:
        raise first_error


def _one_by_one(
    calls: list[_Planned], outcomes: dict[str, dict[int, list[ArtifactRef]]], made: Made
) -> None:
    for call in calls:
        name, stage = call.stage.name, call.stage.stage
        result = stage.named(name, *call.arguments, call.stage.params)
        outcomes[name][call.position] = _gated(call, result, outcomes, made)


def _gated(
    call: _Planned,
    result: ArtifactRef | list[ArtifactRef],
    outcomes: dict[str, dict[int, list[ArtifactRef]]],
    made: Made,
) -> list[ArtifactRef]:
    """What a call gives, after it was drawn again where it is a gate that says so."""
    again = call.stage.again
    if again is None or not isinstance(result, ArtifactRef):
        return _listed(result)
    arguments = [each.arguments for each in _calls(again, made)]
    return [passing(call.stage, result, call.position, outcomes[again.name], arguments)]


def _in_order(by_position: dict[int, list[ArtifactRef]]) -> list[ArtifactRef]:
    return [ref for _, refs in sorted(by_position.items()) for ref in refs]


def _too_many() -> PipelineError:
    return InvalidFieldValueError(
        f"the stages run more than {MOST_CALLS} times, each once for every picture it reads",
        "ask for fewer pictures in the first stages",
    )


def _calls(planned: PlannedStage, made: Made) -> Iterator[_Planned]:
    if not planned.reads:
        yield _Planned(planned, 0, (None,) * len(planned.stage.reads))
        return
    if planned.stage.gathers:
        alone = len(planned.stage.reads) - 1
        listed = [ref for read in planned.reads[alone:] for ref in made[read]]
        yield _Planned(planned, 0, (*(made[read][0] for read in planned.reads[:alone]), listed))
        return
    first, *others = planned.reads
    for position, ref in enumerate(made[first]):
        yield _Planned(planned, position, (ref, *(made[other][0] for other in others)))


def _listed(result: ArtifactRef | list[ArtifactRef]) -> list[ArtifactRef]:
    return [result] if isinstance(result, ArtifactRef) else result
