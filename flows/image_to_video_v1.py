"""Pictures that become short videos."""

from typing import Annotated

from pydantic import Field

from flows.running.gating import gated
from flows.running.inputs import Changes, Media, QualityLevel, Seed, ingest_media, knobs_of
from flows.running.recorded import recorded_flow
from presets.image_to_video_v1 import PRESET
from safelight.store.artifact import ArtifactRef
from tasks.animate import animate

NONE: Changes = {}
Happening = Annotated[
    str,
    Field(max_length=2000, description="What happens in the video; for video models."),
]
Duration = Annotated[
    float | None,
    Field(ge=2, le=5, description="Seconds. None: 2, 3 or 5, as the quality says."),
]


@recorded_flow
def image_to_video_v1(
    image: Media,
    prompt: Happening = "",
    duration: Duration = None,
    seed: Seed = None,
    quality: QualityLevel = "standard",
    overrides: Changes = NONE,
) -> ArtifactRef:
    """Make a short video of a picture, its first frame."""
    knobs = knobs_of(PRESET, quality, overrides)
    given = {"duration": duration} if duration is not None else {}
    picture = ingest_media("image", image, ("image",))
    motion = knobs.animate.but(prompt=prompt, **given)
    clip, _ = gated(lambda drawn: animate(picture, motion.but(seed=drawn)), seed or 0, knobs.gate)
    return clip
