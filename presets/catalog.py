"""Finds presets by their id: every module of this package whose name ends in a version."""

import importlib
import pkgutil
import re
from collections.abc import Mapping
from typing import Any, cast

from pydantic import JsonValue, TypeAdapter, ValidationError

import presets
from presets.preset import Knobs, Overrides, Preset, Quality
from safelight.errors import ContractMismatchError
from safelight.params import refusal

_VERSIONED = re.compile(r"^[a-z0-9_]+_v\d+$")


def preset_ids() -> tuple[str, ...]:
    """Ids of all presets, sorted."""
    names = (module.name for module in pkgutil.iter_modules(presets.__path__))
    return tuple(sorted(name for name in names if _VERSIONED.match(name)))


def find_preset(preset_id: str) -> Preset[Knobs]:
    """The preset with this id.

    Raises:
        ContractMismatchError: there is none.
    """
    if preset_id not in preset_ids():
        raise ContractMismatchError(
            f"there is no preset {preset_id!r}; there are {', '.join(preset_ids())}",
            "choose one of these",
        )
    module = importlib.import_module(f"presets.{preset_id}")
    return module.PRESET


def check_overrides(preset_id: str, quality: str | None, overrides: JsonValue) -> None:
    """Refuse overrides that the preset does not take at this quality level.

    Args:
        preset_id: of a preset.
        quality: None is the level that its flow takes when none is named.
        overrides: as the flow got them, already known to be objects in an object.

    Raises:
        PipelineError: as `Knobs.overridden` says.
    """
    level = cast(Quality, quality or "standard")
    find_preset(preset_id).at(level, cast(Overrides, overrides))


def check_pipeline(described: Mapping[str, JsonValue], call_input: dict[str, JsonValue]) -> None:
    """Refuse a pipeline and its call as the flow would.

    Raises:
        PipelineError: as `plan_pipeline` says.
    """
    from presets.pipeline import Pipeline, plan_pipeline

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
    from presets.pipeline import Pipeline
    from tasks.catalog import find_stage

    try:
        pipeline = Pipeline.model_validate({"stages": described.get("stages")})
    except ValidationError as error:
        raise refusal(error, "pipeline") from error
    return {
        spec.name: find_stage(spec.stage_type).params_type.model_json_schema()
        for spec in pipeline.stages
    }
