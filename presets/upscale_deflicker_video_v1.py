"""Videos enlarged, their flicker and noise taken out."""

from presets.base.preset import Knobs, Preset
from tasks.deflicker import DeflickerParams
from tasks.denoise import DenoiseParams
from tasks.interpolate import InterpolateParams
from tasks.upscale import UpscaleParams


class UpscaleDeflickerKnobs(Knobs):
    """Every knob of the video upscaler, by step."""

    deflicker: DeflickerParams
    """Light held steady first: noise is measured, and frames are made, between steady ones."""
    denoise: DenoiseParams | None = None
    """Noise taken out in time and space, so that it is not enlarged."""
    interpolate: InterpolateParams | None = None
    """More frames a second; before the enlargement, where motion is found in less time."""
    upscale: UpscaleParams
    """The enlargement."""


PRESET = Preset[UpscaleDeflickerKnobs](
    id="upscale_deflicker_video_v1",
    name="Upscale and deflicker a video",
    description="A video two or four times as large on each side, its light held steady; "
    "at pro with 60 frames a second. The sound is kept.",
    category="post_processing",
    required_inputs=("video",),
    engines=("provider_runware", "realesrgan", "rife"),
    failure_modes={
        "INVALID_FIELD_VALUE": "Export the video as MP4, MOV, MKV or WebM. At pro, one of 60 or "
        'more frames a second: overrides {"interpolate": {"target_fps": 120}}, or 240.',
        "OUT_OF_MEMORY": 'Use smaller tiles: overrides {"upscale": {"tile": 64}}.',
        "DISK_FULL": "Free space under VOLUME_ROOT; frames are up to 16 times as large.",
        "DEPENDENCY_MISSING": "Install the weights that the message names, with its command.",
    },
    levels={
        "low": UpscaleDeflickerKnobs(
            deflicker=DeflickerParams(level=1.0),  # light is steady or it is not
            upscale=UpscaleParams(upscale_factor=2, model="video"),  # basic: nothing is cleaned
        ),
        "standard": UpscaleDeflickerKnobs(
            deflicker=DeflickerParams(level=1.0),
            denoise=DenoiseParams(level=0.5),  # all noise that is measured
            # advanced; not with photo, which invents other detail in each frame, so that it boils
            upscale=UpscaleParams(upscale_factor=2, model="video"),
        ),
        "pro": UpscaleDeflickerKnobs(
            deflicker=DeflickerParams(level=1.0),
            denoise=DenoiseParams(level=0.5),
            interpolate=InterpolateParams(target_fps=60),  # what screens show
            upscale=UpscaleParams(upscale_factor=4, model="video"),
        ),
    },
)
