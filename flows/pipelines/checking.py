"""Refuses a pipeline as its flow would, and shows what its stages take; nothing is loaded."""

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError

from flows.pipelines.plan import Pipeline, plan_pipeline
from safelight.params import refusal
from tasks.base.catalog import find_stage


def check_pipeline(described: Mapping[str, JsonValue], call_input: dict[str, JsonValue]) -> None:
    """Refuse a pipeline and its call as the flow would.

    Raises:
        PipelineError: as `plan_pipeline` says.
    """
    try:
        pipeline = Pipeline.model_validate(
            {name: described[name] for name in Pipeline.model_fields if name in described}
        )
        seed = TypeAdapter[int | None](int | None).validate_python(described.get("seed"))
    except ValidationError as error:
        raise refusal(error, "pipeline") from error
    plan_pipeline(pipeline, call_input, seed)


def pipeline_schemas(described: Mapping[str, JsonValue]) -> dict[str, dict[str, Any]]:
    """Name of each stage of a pipeline to the JSON schema of its parameters.

    Raises:
        PipelineError: the pipeline has no stages as they should be.
    """
    try:
        pipeline = Pipeline.model_validate({"stages": described.get("stages")})
    except ValidationError as error:
        raise refusal(error, "pipeline") from error
    return {
        spec.name: find_stage(spec.stage_type).params_type.model_json_schema()
        for spec in pipeline.stages
    }
