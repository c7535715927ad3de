"""Failed runs made again with safer settings or by another engine."""

from typing import Annotated, cast
from uuid import UUID

from pydantic import Field, JsonValue

from flows.running.inputs import Changes, QualityLevel, knobs_of
from flows.running.recorded import recorded_flow
from flows.running.repairing import failed_run, repaired
from flows.running.subflows import call_part, flow_named
from presets.base.preset import Quality
from presets.repair_pipeline_v1 import PRESET
from safelight.store.artifact import ArtifactRef
from tasks.base.recorder import avoiding, recorder

NONE: Changes = {}
Override = Annotated[
    Quality | None,
    Field(description="Level that a preset is run again at. None: as the quality here says."),
]


@recorded_flow
def repair_pipeline_v1(
    failed_job_id: Annotated[UUID, Field(description="Id of a run that failed.")],
    quality_override: Override = None,
    quality: QualityLevel = "standard",
    overrides: Changes = NONE,
) -> list[ArtifactRef]:
    """Make a failed run again: low asks for less, standard for a bit less, pro another engine."""
    knobs = knobs_of(PRESET, quality, overrides).rerun
    failed = failed_run(failed_job_id)
    flow = flow_named(failed.flow)
    repair = repaired(failed, knobs, quality_override)
    avoided = failed.engines if knobs.another_engine else frozenset[str]()
    recorder().answer["repair"] = {
        "of": failed.flow_run_id,
        "failed_with": failed.failure.code,
        "changes": repair.changes,
        "avoided_engines": cast(JsonValue, sorted(avoided)),
    }
    with avoiding(avoided):
        made = call_part(flow, failed.flow, repair.parameters)
    return list(made.shown)
