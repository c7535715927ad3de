"""Clips of a product as people make them: a picture that moves, a look, a sound."""

from pydantic import Field

from presets.base.preset import Knobs, Overrides, Preset, Quality
from presets.color_grade_film_grain_v1 import Style
from safelight.params import Params
from tasks.dub import DubParams
from tasks.lipsync import LipsyncParams

NOTHING: Overrides = {}


class PartParams(Params):
    """Another preset as a part of this one."""

    quality: Quality
    """Its level."""
    overrides: Overrides = Field(default=NOTHING)
    """Tuned values of it to replace, by its steps."""


class LookParams(PartParams):
    """The film look."""

    style: Style = "warm"
    """Colours; warm is how phones show things in a room."""


class UgcClipKnobs(Knobs):
    """Every knob of the clip, by part."""

    clip: PartParams
    """`image_to_video_v1`: the motion."""
    lipsync: LipsyncParams | None = None
    """The mouth of whoever holds the product, where a sound is given and an engine moves lips."""
    grade: LookParams | None = None
    """`color_grade_film_grain_v1`: the look."""
    upscale: PartParams | None = None
    """`upscale_deflicker_video_v1`: the enlargement, after the look, as the grain is part of it."""
    dub: DubParams = DubParams()
    """The sound, where one is given."""


PRESET = Preset[UgcClipKnobs](
    id="ugc_clip_builder_v1",
    name="Product clip",
    description="A short vertical or wide clip of a product picture: it moves, gets a look, is "
    "enlarged, and has a sound under it.",
    category="hybrid_pipeline",
    required_inputs=("product_image", "prompt"),
    optional_inputs=("audio", "seed"),
    engines=(
        "provider_synclabs",
        "provider_kling",
        "diffusers",
        "local_motion",
        "realesrgan",
        "rife",
        "numpy",
    ),
    safety_notes=(
        "Say that it is advertising, and that it was made; nobody filmed it.",
        "Use sound that you may use.",
    ),
    failure_modes={
        "INVALID_FIELD_VALUE": "Give a PNG, JPEG or WebP, and WAV, MP3, M4A, FLAC or Ogg as audio.",
        "FILE_NOT_FOUND": "Put the files under VOLUME_ROOT, or name links of artifacts.",
        "DEPENDENCY_MISSING": "Install the weights that the message names, with its command.",
        "OUT_OF_MEMORY": "Choose quality low, or a smaller picture.",
    },
    levels={
        "low": UgcClipKnobs(
            clip=PartParams(quality="low"),  # two seconds, to see whether the idea holds
        ),
        "standard": UgcClipKnobs(
            clip=PartParams(quality="standard"),
            grade=LookParams(quality="low"),  # colour alone: feeds recompress grain to mush
        ),
        "pro": UgcClipKnobs(
            clip=PartParams(quality="pro"),
            lipsync=LipsyncParams(fidelity="high"),
            grade=LookParams(quality="standard"),  # with light grain, for files that stay files
            upscale=PartParams(
                quality="standard",  # not pro: that raises the rate, and pro clips have 60 already
            ),
        ),
    },
)
