"""Videos with a film look."""

from typing import Annotated

from pydantic import Field

from flows.running.inputs import Changes, Media, QualityLevel, Seed, ingest_media, knobs_of
from flows.running.recorded import recorded_flow
from presets.color_grade_film_grain_v1 import DEFAULT_STYLE, PRESET, Style
from safelight.store.artifact import ArtifactRef
from tasks.grade import grade

NONE: Changes = {}


@recorded_flow
def color_grade_film_grain_v1(
    video: Media,
    style: Annotated[Style, Field(description="Colours of the look.")] = DEFAULT_STYLE,
    seed: Seed = None,
    quality: QualityLevel = "standard",
    overrides: Changes = NONE,
) -> ArtifactRef:
    """Grade a video and lay film grain over it; the sound is kept."""
    knobs = knobs_of(PRESET, quality, {"grade": {"colour": style}}).overridden(overrides)
    return grade(ingest_media("video", video, ("video",)), knobs.grade.but(seed=seed))
