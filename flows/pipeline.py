"""Any list of stages, run as a DAG."""

from typing import Annotated

from pydantic import Field, JsonValue

from flows.pipelines.plan import (
    MEDIA_INPUTS,
    MOST_STAGES,
    Pipeline,
    StageSpec,
    plan_pipeline,
)
from flows.pipelines.run import Made, run_plan
from flows.running.inputs import Seed, ingest_media
from flows.running.recorded import recorded_flow
from safelight.store.artifact import ArtifactRef
from tasks.base.recorder import recorder

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
