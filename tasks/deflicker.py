"""The deflicker stage: brightness and colour of a video held steady, motion kept."""

from collections.abc import Iterator
from itertools import chain

from pydantic import Field

from safelight.engines.interface import ComputeRequest
from safelight.media.video.flicker import corrections, light_paths, relit
from safelight.media.video.stream import read_frames
from safelight.params import Params
from safelight.pixels import Floats, Pixels
from safelight.progress import note, part, step
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.keeping import record_of
from tasks.base.resuming import resuming
from tasks.base.stage import cache_key, stage
from tasks.base.video_stage import transformed

REVISION = "1"
"""Raised when the arithmetic changes, so that no older result is taken for a new one."""


class DeflickerParams(Params):
    """How much flicker to take out."""

    level: float = Field(default=1.0, ge=0, le=1)
    """The part of the flicker that is taken out, of brightness and of colour. 0 changes nothing."""


@stage(
    reads={"video": ("video",)},
    makes="video",
    origin="enhances",
    needs=lambda *_: (ComputeRequest(REVISION),),
)
def deflicker(video: ArtifactRef, params: DeflickerParams) -> ArtifactRef:
    """Hold the light of a stored video steady from frame to frame, its sound kept.

    The video is decoded twice: once to measure the light of all frames, once to change them.

    Args:
        video: with flicker that is the same all over the picture.
        params: how much.

    Returns:
        A new artifact of the same frames and size; the input itself at level 0.

    Raises:
        InvalidMediaError: the artifact is not a video that can be decoded.
    """
    if params.level == 0:
        note("level is 0: there is nothing to take out")
        return video
    record = record_of(params, [video])
    key = cache_key(deflicker, [video, params])
    with part(0, 2):
        gains = _gains(video, params.level)
    with part(1, 2):
        return transformed(
            video,
            record,
            resuming(key, relit),
            lambda make, frames: (
                make(frame, each) for frame, each in zip(frames, gains, strict=False)
            ),
        )


def _gains(video: ArtifactRef, level: float) -> list[Floats]:
    """For each frame what its red, green and blue are multiplied with, 12 bytes."""
    scenes = list(light_paths(_counted(video)))
    flicker = max(float(path.std(axis=0).max()) for path in scenes)
    note(f"{len(scenes)} scenes, their light changes by up to {flicker:.1%} (standard deviation)")
    return list(chain.from_iterable(corrections(path, level) for path in scenes))


def _counted(video: ArtifactRef) -> Iterator[Pixels]:
    """All frames; each is a step, so that a run stops here too."""
    for at, frame in enumerate(read_frames(current_store().fetch(video)), 1):
        yield frame
        step(at, max(at, video.frames or 0))
