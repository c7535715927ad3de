"""The one way to make a video of a video: decode, change, encode and store, keeping the sound."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

from safelight.media.video.stream import transform_frames
from safelight.pixels import Pixels
from safelight.provenance.embed import video_tags
from safelight.provenance.record import FileRecord
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.keeping import keep_video

Make = TypeVar("Make")


def transformed(
    video: ArtifactRef,
    record: FileRecord,
    resumable: AbstractContextManager[Make],
    change: Callable[[Make, Iterator[Pixels]], Iterator[Pixels]],
    *,
    fps: Fraction | None = None,
    frames: int | None = None,
    layered: bool = False,
) -> ArtifactRef:
    """Change a stored video frame by frame and store the result; sound and transparency stay.

    Memory does not grow with the video, and what the engine made before a kill is not made again.

    Args:
        video: what to read.
        record: what the new file says about itself.
        resumable: `resuming` or `resuming_begun` of the engine's call for one frame.
        change: from that call and an iterator over the frames, (H, W, 3) uint8 sRGB, to one over
            the new frames, all of one size.
        fps: rate of the result; None keeps the time of each frame, `change` then gives one for one.
        frames: how many `change` will give, for the progress; None says as many as there are.
        layered: whether `change` takes and gives (H, W, 4) where something is transparent.

    Returns:
        A new artifact: MP4, WebM where something is transparent, MKV where that cannot hold the
        sound.

    Raises:
        InvalidMediaError: not a video that can be decoded.
        StopRequestedError: the run was asked to stop; finished frames are kept for the next try.
        DiskFullError: no room is left.
    """
    store = current_store()
    with store.workspace() as folder, resumable as make:
        path = Path(folder) / "made"
        made = transform_frames(
            store.fetch(video),
            path,
            lambda shown: change(make, shown),
            video_tags(record),
            fps=fps,
            frames=frames,
            layered=layered,
        )
        return keep_video(
            path,
            width=made.width,
            height=made.height,
            frames=made.frames,
            fps=float(made.fps),
            media_type=made.media_type,
        )
