"""How a pipeline is described: its stages, and the parameters that they share."""

from pydantic import Field, JsonValue

from safelight.params import Params
from safelight.store.artifact import MediaKind

MEDIA_INPUTS: dict[str, MediaKind] = {
    "image": "image",
    "mask": "image",
    "video": "video",
    "audio": "audio",
}
"""Keys of a call's input that name files, and what must be in them."""


MOST_STAGES = 200
"""Of a pipeline; people's have a dozen."""


class StageSpec(Params):
    """One stage of a pipeline."""

    stage_type: str
    """Which stage: generate, refine, upscale, ...; older names are understood."""
    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")
    """What other stages and the result call it; unique in the pipeline."""
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    """Parameters of the stage; the call's input wins over them."""
    reads: tuple[str, ...] | None = None
    """Names of the earlier stages, or of the inputs image, mask, video, that it reads; a stage
    that takes a list, such as blend and storyboard, may name any number. None reads the stage
    before it, or the call's own image or video when it is the first."""


class Pipeline(Params):
    """Stages and the parameters that all of them share."""

    stages: tuple[StageSpec, ...] = Field(min_length=1, max_length=MOST_STAGES)
    """In any order that `reads` makes sense of; run as a DAG."""
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    """Given to every stage with a field of that name; a stage's own parameters win over them."""
