"""Refuses a pipeline as its flow would, and shows what its stages take; nothing is loaded."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError

from flows.pipelines.described import MEDIA_INPUTS, MOST_STAGES, Pipeline, StageSpec
from flows.pipelines.plan import Plan, plan_pipeline, refuse_names
from flows.pipelines.problems import Gathered, PipelineProblem, Place
from safelight.errors import ContractMismatchError, PipelineError
from safelight.params import refusal, refusals
from tasks.base.catalog import ALIASES, find_stage, stages

Described = Mapping[str, JsonValue]
SEED = TypeAdapter[int | None](int | None)
ANY_FILE = "store:any"
"""Stands for media of a call that is not there yet; no file is opened."""


def check_pipeline(described: Described, call_input: dict[str, JsonValue]) -> None:
    """Refuse a pipeline and its call as the flow would.

    Raises:
        PipelineError: as `plan_pipeline` says.
    """
    try:
        pipeline = _whole(described)
        seed = SEED.validate_python(described.get("seed"))
    except ValidationError as error:
        raise refusal(error, "pipeline") from error
    plan_pipeline(pipeline, call_input, seed)


def pipeline_schemas(described: Described) -> dict[str, dict[str, Any]]:
    """Name of each stage of a pipeline to the JSON schema of its parameters.

    Raises:
        PipelineError: the pipeline has no stages as they should be.
    """
    pipeline = _stages_alone(described)
    return {
        spec.name: find_stage(spec.stage_type).params_type.model_json_schema()
        for spec in pipeline.stages
    }


def pipeline_problems(
    described: Described, call_input: dict[str, JsonValue]
) -> list[PipelineProblem]:
    """Everything that is wrong with a pipeline, whatever media its call brings; nothing is loaded.

    What only follows from something else that is wrong is left out.
    """
    gathered = Gathered()
    for key in described.keys() - {*Pipeline.model_fields, "seed", "call_input"}:
        error = ContractMismatchError(
            f"pipeline: there is no field {key}", f"remove {key} or correct its name"
        )
        gathered.tell_form((key,), error)
    for told in _wrong_forms(described):
        gathered.tell_form(*told)
    pipeline = _as_far_as_it_goes(described)
    refuse_names(pipeline, gathered.tell)
    if pipeline.stages:
        own = _with_own_names(pipeline)
        each = [_told(own, media | call_input, gathered) for media in _medias(own)]
        gathered = min(each, key=lambda one: len(one.found))
    return sorted(gathered.found, key=_order)


def _told(pipeline: Pipeline, call_input: dict[str, JsonValue], before: Gathered) -> Gathered:
    gathered = Gathered([*before.found], before.formless)
    plan_pipeline(pipeline, call_input, tell=gathered.tell)
    return gathered


def pipeline_diagram(described: Described) -> list[str]:
    """A pipeline as the lines of a Mermaid diagram: who reads what.

    Raises:
        PipelineError: the pipeline is not as it should be.
    """
    pipeline = _stages_alone(described)
    plan = _plan_with_any_media(pipeline)
    read = dict.fromkeys(name for planned in plan.stages for name in planned.reads)
    lines = ["flowchart LR"]
    lines += [f"    {_node(name)}([{name}])" for name in read if name in MEDIA_INPUTS]
    for planned in plan.stages:
        kind = planned.stage.name
        label = planned.name if planned.name == kind else f"{planned.name}: {kind}"
        lines.append(f'    {_node(planned.name)}["{label}"]')
        lines += [f"    {_node(name)} --> {_node(planned.name)}" for name in planned.reads]
    return lines


def _whole(described: Described) -> Pipeline:
    """All of a description that belongs to the pipeline itself."""
    return Pipeline.model_validate(
        {name: described[name] for name in Pipeline.model_fields if name in described}
    )


def _stages_alone(described: Described) -> Pipeline:
    try:
        return Pipeline.model_validate({"stages": described.get("stages")})
    except ValidationError as error:
        raise refusal(error, "pipeline") from error


def _node(name: str) -> str:
    """An id that is no word of Mermaid's."""
    return f"n_{name}"


def _wrong_forms(described: Described) -> Iterator[tuple[Place, PipelineError]]:
    """Where a description is no pipeline at all."""
    try:
        _whole(described)
    except ValidationError as error:
        yield from refusals(error, "pipeline")
    try:
        SEED.validate_python(described.get("seed"))
    except ValidationError as error:
        yield from ((("seed", *path), one) for path, one in refusals(error, "pipeline"))


def _as_far_as_it_goes(described: Described) -> Pipeline:
    """What of a description is in form, each stage in its place."""
    listed, shared = described.get("stages"), described.get("parameters")
    specs = [_stage(at, one) for at, one in enumerate(listed)] if isinstance(listed, list) else []
    return Pipeline.model_construct(
        stages=tuple(specs[:MOST_STAGES]),
        parameters=shared if isinstance(shared, dict) else {},
    )


def _stage(at: int, given: JsonValue) -> StageSpec:
    told: dict[str, JsonValue] = given if isinstance(given, dict) else {}
    try:
        return StageSpec.model_validate(told)
    except ValidationError as error:
        wrong = {path[0] for path, _ in refusals(error, "stage") if path}
    right = {name: told[name] for name in StageSpec.model_fields if name in told.keys() - wrong}
    blank: dict[str, Any] = {"stage_type": "", "name": f"stage {at + 1}", "reads": ()}
    if "reads" not in told:
        blank["reads"] = None
    reads = right.pop("reads", None)
    if isinstance(reads, list | tuple):
        blank["reads"] = tuple(reads)
    return StageSpec.model_construct(None, **{"parameters": {}, **blank, **right})


def _with_own_names(pipeline: Pipeline) -> Pipeline:
    """Every stage under a name of its own, so that each is looked at."""
    names = [spec.name for spec in pipeline.stages]
    own = tuple(
        spec.model_copy(update={"name": f"stage {at + 1}"})
        if spec.name in MEDIA_INPUTS or spec.name in names[:at]
        else spec
        for at, spec in enumerate(pipeline.stages)
    )
    return Pipeline.model_construct(stages=own, parameters=pipeline.parameters)


def _medias(pipeline: Pipeline) -> list[dict[str, JsonValue]]:
    """Media of calls that the pipeline may be for: one for each kind that its first stage reads."""
    read: set[str] = set()
    kinds: tuple[str, ...] = ()
    for at, spec in enumerate(pipeline.stages):
        stage = stages().get(ALIASES.get(spec.stage_type, spec.stage_type))
        if spec.reads is not None:
            read.update(spec.reads)
        elif stage is not None and stage.reads:
            first, *others = stage.reads
            read.update(others)
            kinds = stage.reads[first] if at == 0 and not stage.optional else kinds
    return [
        dict.fromkeys(sorted(MEDIA_INPUTS.keys() & {*read, kind}), ANY_FILE)
        for kind in kinds or ("",)
    ]


def _plan_with_any_media(pipeline: Pipeline) -> Plan:
    """Plan it as if the call brought every file that stages read."""
    first: PipelineError | None = None
    for media in _medias(pipeline):
        try:
            return plan_pipeline(pipeline, media)
        except PipelineError as error:
            first = first or error
    if first is None:
        raise ValueError("a pipeline is for one kind of media at the least")
    raise first


def _order(problem: PipelineProblem) -> list[tuple[int, int, str]]:
    """Stages first and in their order, then what they share."""
    head = {"stages": 0, "parameters": 1}.get(str(problem.path[0]) if problem.path else "", 2)
    parts = [(0, part, "") if isinstance(part, int) else (1, 0, part) for part in problem.path]
    return [(head, 0, ""), *parts]
