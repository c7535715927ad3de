"""Videos with a film look."""

from typing import Literal

from presets.base.preset import Knobs, Preset
from tasks.grade import GradeParams

Style = Literal["warm", "cool", "cinematic"]
DEFAULT_STYLE: Style = "cinematic"


class ColorGradeKnobs(Knobs):
    """Every knob of the film look."""

    grade: GradeParams
    """Colour, grain and tone."""


PRESET = Preset[ColorGradeKnobs](
    id="color_grade_film_grain_v1",
    name="Colour grade and film grain",
    description="A video graded warm, cool or cinematic, with film grain; the sound is kept.",
    category="post_processing",
    required_inputs=("video",),
    optional_inputs=("style",),
    engines=("numpy",),
    failure_modes={
        "INVALID_FIELD_VALUE": "Export the video as MP4, MOV, MKV or WebM and try again.",
        "DISK_FULL": "Free space under VOLUME_ROOT; the result is about as large as the source.",
    },
    levels={
        "low": ColorGradeKnobs(
            grade=GradeParams(colour=DEFAULT_STYLE, colour_strength=0.7),
        ),
        "standard": ColorGradeKnobs(
            grade=GradeParams(
                colour=DEFAULT_STYLE,
                colour_strength=0.7,
                grain=0.2,  # light: survives the encoder without doubling the file
            ),
        ),
        "pro": ColorGradeKnobs(
            grade=GradeParams(
                colour=DEFAULT_STYLE,
                colour_strength=0.7,
                grain=0.5,  # heavy: that of a fast 16 mm stock
                tone=0.4,  # highlights roll off as film does
            ),
        ),
    },
)
