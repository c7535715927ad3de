"""Any list of stages, run as a DAG."""

from typing import Annotated

from pydantic import Field, JsonValue

from flows.pipelines.described import MEDIA_INPUTS, MOST_STAGES, Pipeline, StageSpec
from flows.pipelines.plan import plan_pipeline
from flows.pipelines.run import Made, run_plan
from flows.running.inputs import Seed, ingest_media, ingest_several
from flows.running.recorded import recorded_flow
from safelight.errors import MissingRequiredFieldError
from safelight.store.artifact import ArtifactRef, MediaKind
from tasks.base.recorder import recorder

Shared = Annotated[
    dict[str, JsonValue],
    Field(description="Given to every stage that has a field of that name."),
]
CallInput = Annotated[
    dict[str, JsonValue],
    Field(
        description="image, mask or video, each a file or a list of files; any other key is a "
        "parameter and wins over all."
    ),
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
    plan = plan_pipeline(described, call_input, seed, runs=True)
    recorder().expected_stages = len(plan.stages)
    made: Made = {
        name: _ingested(name, call_input[name], kind)
        for name, kind in MEDIA_INPUTS.items()
        if call_input.get(name) is not None
    }
    run_plan(plan, made)
    return [ref for name in plan.ends for ref in made[name]]


def _ingested(name: str, given: JsonValue, kind: MediaKind) -> list[ArtifactRef]:
    """The file or files of one input; a stage runs once for each, or once for all of a list."""
    if not isinstance(given, list):
        return [ingest_media(name, str(given), (kind,))]
    if not given:
        raise MissingRequiredFieldError(
            f"the call's input: {name} is an empty list", f"name a file in {name}"
        )
    return ingest_several(name, [str(place) for place in given], (kind,))
