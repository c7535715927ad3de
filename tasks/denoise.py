"""The denoise stage: noise taken out of a picture or a video, edges kept."""

from pydantic import Field

from safelight.engines.interface import ComputeRequest
from safelight.media.denoising import cleaned_frame, denoised_frames, denoised_picture
from safelight.params import Params
from safelight.progress import note
from safelight.store.artifact import ArtifactRef
from tasks.base.keeping import is_animated, keep_changed, record_of
from tasks.base.resuming import resuming
from tasks.base.stage import cache_key, stage
from tasks.base.video_stage import transformed

REVISION = "2"
"""Raised when the arithmetic changes, so that no older result is taken for a new one."""


class DenoiseParams(Params):
    """How much noise to take out."""

    level: float = Field(default=0.5, ge=0, le=1)
    """0.5 takes out the noise that is measured in the picture; 0.3 leaves a trace of it, and every
    texture; 1 takes out what looks like twice as much. 0 changes nothing."""


@stage(
    reads={"picture": ("image", "video")},
    makes="same",
    origin="enhances",
    needs=lambda *_: (ComputeRequest(REVISION),),
    revision=2,
)
def denoise(picture: ArtifactRef, params: DenoiseParams) -> ArtifactRef:
    """Take noise out of one stored picture, or out of a video in space and time.

    Args:
        picture: a still or an animated picture, or a video.
        params: how much.

    Returns:
        A new artifact of the same size; the input itself at level 0.

    Raises:
        InvalidMediaError: the artifact is not a picture or video that can be decoded.
    """
    if params.level == 0:
        note("level is 0: there is nothing to take out")
        return picture
    record = record_of(params, [picture])
    if picture.kind != "video":
        if is_animated(picture):
            return keep_changed(picture, record, lambda shown: denoised_frames(shown, params.level))
        return keep_changed(
            picture, record, lambda one: (denoised_picture(each, params.level) for each in one)
        )
    key = cache_key(denoise, [picture, params])
    return transformed(
        picture,
        record,
        resuming(key, cleaned_frame),
        lambda clean, frames: denoised_frames(frames, params.level, clean),
    )
