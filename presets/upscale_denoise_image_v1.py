"""Pictures enlarged and cleaned."""

from presets.base.preset import Knobs, Preset
from tasks.denoise import DenoiseParams
from tasks.upscale import UpscaleParams


class UpscaleDenoiseKnobs(Knobs):
    """Every knob of the upscaler, by step."""

    denoise: DenoiseParams
    """Noise taken out first, so that it is not enlarged."""
    upscale: UpscaleParams
    """The enlargement."""


PRESET = Preset[UpscaleDenoiseKnobs](
    id="upscale_denoise_image_v1",
    name="Upscale and denoise a picture",
    description="A picture two or four times as large on each side, with its noise taken out.",
    category="post_processing",
    required_inputs=("image",),
    engines=("provider_runware", "realesrgan"),
    failure_modes={
        "INVALID_FIELD_VALUE": "Convert the file to PNG, JPEG or WebP, or scale it down first.",
        "OUT_OF_MEMORY": 'Use smaller tiles: overrides {"upscale": {"tile": 64}}.',
    },
    levels={
        "low": UpscaleDenoiseKnobs(
            denoise=DenoiseParams(
                level=0.3
            ),  # light: keeps the texture that little enlarging shows
            upscale=UpscaleParams(upscale_factor=2, model="video"),  # basic: twenty times as fast
        ),
        "standard": UpscaleDenoiseKnobs(
            denoise=DenoiseParams(level=0.5),  # all noise that is measured: a drawing net keeps it
            upscale=UpscaleParams(upscale_factor=2, model="photo"),  # advanced: draws detail
        ),
        "pro": UpscaleDenoiseKnobs(
            denoise=DenoiseParams(level=0.5),
            upscale=UpscaleParams(upscale_factor=4, model="photo"),
        ),
    },
)
