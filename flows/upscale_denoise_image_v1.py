"""Pictures enlarged and cleaned."""

from flows.running.inputs import Changes, Media, QualityLevel, ingest_media, knobs_of
from flows.running.recorded import recorded_flow
from presets.upscale_denoise_image_v1 import PRESET
from safelight.store.artifact import ArtifactRef
from tasks.denoise import denoise
from tasks.upscale import upscale

NONE: Changes = {}


@recorded_flow
def upscale_denoise_image_v1(
    image: Media, quality: QualityLevel = "standard", overrides: Changes = NONE
) -> ArtifactRef:
    """Take the noise out of a picture and make it two or four times as large on each side."""
    knobs = knobs_of(PRESET, quality, overrides)
    clean = denoise(ingest_media("image", image, ("image",)), knobs.denoise)
    return upscale(clean, knobs.upscale)
