"""Refuses a pipeline as its flow would, and shows what its stages take; nothing is loaded."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError

from flows.pipelines.plan import MEDIA_INPUTS, Pipeline, Plan, StageSpec, plan_pipeline
from safelight.errors import MissingRequiredFieldError, PipelineError
from safelight.params import refusal, refusals
from tasks.base.catalog import find_stage

Described = Mapping[str, JsonValue]
ANY_FILE = "store:any"
"""Stands for media of a call that is not there yet; no file is opened."""


@dataclass(frozen=True)
class PipelineProblem:
    """Something that is wrong with a pipeline."""

    path: tuple[str | int, ...]
    """Where: names and places from the outside in."""
    code: str
    """Of the error that a run would end with."""
    problem: str
    """What was found and what was expected."""
    remedy: str
    """What to do."""


def check_pipeline(described: Described, call_input: dict[str, JsonValue]) -> None:
    """Refuse a pipeline and its call as the flow would.

    Raises:
        PipelineError: as `plan_pipeline` says.
    """
    try:
        pipeline = _whole(described)
        seed = TypeAdapter[int | None](int | None).validate_python(described.get("seed"))
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

    What stages read is looked at once each of them is right by itself.
    """
    try:
        pipeline = _whole(described)
    except ValidationError as error:
        return [_problem(path, told) for path, told in refusals(error, "pipeline")]
    found = [one for at, spec in enumerate(pipeline.stages) for one in _in_stage(at, spec)]
    if found:
        return found
    try:
        _plan_with_any_media(pipeline, call_input)
    except PipelineError as error:
        return [_problem(_place(pipeline, error), error)]
    return []


def pipeline_diagram(described: Described) -> list[str]:
    """A pipeline as the lines of a Mermaid diagram: who reads what.

    Raises:
        PipelineError: the pipeline is not as it should be.
    """
    pipeline = _stages_alone(described)
    plan = _plan_with_any_media(pipeline, {})
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


def _in_stage(at: int, spec: StageSpec) -> Iterator[PipelineProblem]:
    place: tuple[str | int, ...] = ("stages", at)
    try:
        params_type = find_stage(spec.stage_type).params_type
    except PipelineError as error:
        yield _problem((*place, "stage_type"), error)
        return
    try:
        params_type.model_validate(spec.parameters)
    except ValidationError as error:
        for path, told in refusals(error, f"stage {spec.name}"):
            if isinstance(told, MissingRequiredFieldError):
                continue  # the call or the pipeline may bring it
            yield _problem((*place, "parameters", *path), told)


def _plan_with_any_media(pipeline: Pipeline, call_input: dict[str, JsonValue]) -> Plan:
    """Plan it as if the call brought every file that stages read."""
    names = {name for spec in pipeline.stages for name in spec.reads or () if name in MEDIA_INPUTS}
    first = pipeline.stages[0]
    stage = find_stage(first.stage_type)
    if first.reads is None and stage.reads:
        names.add(next(iter(next(iter(stage.reads.values())))))
    any_media: dict[str, JsonValue] = dict.fromkeys(sorted(names), ANY_FILE)
    return plan_pipeline(pipeline, any_media | call_input)


def _place(pipeline: Pipeline, error: PipelineError) -> tuple[str | int, ...]:
    """The stage that a message begins with, and there what it reads."""
    for at, spec in enumerate(pipeline.stages):
        if error.problem.startswith(f"stage {spec.name}:"):
            return ("stages", at, "reads")
    twice = [spec.name for spec in pipeline.stages]
    for at, name in enumerate(twice):
        if name in twice[:at] or (f"named {name!r}" in error.problem and name in MEDIA_INPUTS):
            return ("stages", at, "name")
    return ("parameters",) if "parameters" in error.problem else ("stages",)


def _problem(path: tuple[str | int, ...], error: PipelineError) -> PipelineProblem:
    return PipelineProblem(path, error.code, error.problem, error.remedy)
