"""Any list of stages, run as a DAG."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from prefect.futures import PrefectFuture, as_completed
from pydantic import Field, JsonValue

from flows.inputs import Seed, ingest_media
from flows.running import recorded_flow
from presets.pipeline import (
    MEDIA_INPUTS,
    MOST_STAGES,
    Pipeline,
    Plan,
    PlannedStage,
    StageSpec,
    plan_pipeline,
)
from safelight.errors import InvalidFieldValueError, PipelineError
from safelight.store.artifact import ArtifactRef
from tasks.calling import Call
from tasks.recorder import recorder

MOST_CALLS = 2000
"""Calls of stages in one run."""
MOST_AT_ONCE = 16
"""Each is a thread; the work of stages shares the same cores and devices anyway."""
Made = dict[str, list[ArtifactRef]]
Shared = Annotated[
    dict[str, JsonValue],
    Field(description="Given to every stage that has a field of that name."),
]
CallInput = Annotated[
    dict[str, JsonValue],
    Field(description="image, mask or video; any other key is a parameter and wins over all."),
]
NOTHING: dict[str, JsonValue] = {}


@recorded_flow
def pipeline(
    stages: Annotated[
        list[StageSpec],
        Field(
            min_length=1, max_length=MOST_STAGES, description="Stages, each naming what it reads."
        ),
    ],
    parameters: Shared = NOTHING,
    call_input: CallInput = NOTHING,
    seed: Seed = None,
) -> list[ArtifactRef]:
    """Run any list of stages in the order that what they read asks for, branches side by side."""
    described = Pipeline(stages=tuple(stages), parameters=parameters)
    plan = plan_pipeline(described, call_input, seed)
    recorder().expected_stages = len(plan.stages)
    made: Made = {
        name: [ingest_media(name, str(call_input[name]), (kind,))]
        for name, kind in MEDIA_INPUTS.items()
        if call_input.get(name) is not None
    }
    run_plan(plan, made)
    return [ref for name in plan.ends for ref in made[name]]


@dataclass(frozen=True)
class _Planned:
    stage: PlannedStage
    position: int
    arguments: tuple[ArtifactRef, ...]


def run_plan(plan: Plan, made: Made) -> None:
    """Run all stages; what each makes is added to `made` under its name.

    A stage that reads several pictures of one stage runs once for each of them. When a stage
    fails, those that already run are waited for and recorded, then its error is raised.
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
        if len(calls) == 1 and not running and not queued:
            (alone,) = calls
            name, stage = alone.stage.name, alone.stage.stage
            made[name] = _listed(stage.named(name, *alone.arguments, alone.stage.params))
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
        outcomes[name][planned.position] = _listed(result)
        if len(outcomes[name]) == calls_of[name]:
            made[name] = [ref for _, refs in sorted(outcomes[name].items()) for ref in refs]
    if first_error is not None:
        raise first_error


def _too_many() -> PipelineError:
    return InvalidFieldValueError(
        f"the stages run more than {MOST_CALLS} times, each once for every picture it reads",
        "ask for fewer pictures in the first stages",
    )


def _calls(planned: PlannedStage, made: Made) -> Iterator[_Planned]:
    if not planned.reads:
        yield _Planned(planned, 0, ())
        return
    first, *others = planned.reads
    for position, ref in enumerate(made[first]):
        yield _Planned(planned, position, (ref, *(made[other][0] for other in others)))


def _listed(result: ArtifactRef | list[ArtifactRef]) -> list[ArtifactRef]:
    return [result] if isinstance(result, ArtifactRef) else result
