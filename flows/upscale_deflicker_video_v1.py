"""Videos enlarged, their flicker and noise taken out."""

from flows.running.inputs import Changes, Media, QualityLevel, ingest_media, knobs_of
from flows.running.recorded import recorded_flow
from presets.upscale_deflicker_video_v1 import PRESET
from safelight.store.artifact import ArtifactRef
from tasks.deflicker import deflicker
from tasks.denoise import denoise
from tasks.interpolate import interpolate, require_target
from tasks.upscale import upscale

NONE: Changes = {}


@recorded_flow
def upscale_deflicker_video_v1(
    video: Media, quality: QualityLevel = "standard", overrides: Changes = NONE
) -> ArtifactRef:
    """Hold the light of a video steady and make it two or four times as large on each side."""
    knobs = knobs_of(PRESET, quality, overrides)
    source = ingest_media("video", video, ("video",))
    if knobs.interpolate is not None:
        require_target(source, knobs.interpolate)  # before the work of the steps that come first
    shown = deflicker(source, knobs.deflicker)
    if knobs.denoise is not None:
        shown = denoise(shown, knobs.denoise)
    if knobs.interpolate is not None:
        shown = interpolate(shown, knobs.interpolate)
    return upscale(shown, knobs.upscale)
