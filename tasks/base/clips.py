"""Clips that engines draw, as files: frames as they come, those between them interpolated."""

from fractions import Fraction
from pathlib import Path

from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import InterpolateRequest, Interpolates, Interpolating
from safelight.engines.results import Clip
from safelight.media.video.retiming import Pending, in_order, retimed_at
from safelight.media.video.stream import FrameWriter
from safelight.pixels import Pixels
from safelight.progress import step
from safelight.provenance.embed import video_tags
from safelight.provenance.record import FileRecord
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.calling import serving
from tasks.base.keeping import keep_written


def keep_clip(clip: Clip, record: FileRecord, seconds: float, fps: int) -> ArtifactRef:
    """Store the first seconds of a clip at a rate, as MP4 without sound.

    Args:
        clip: at least as long.
        record: how it was made.
        seconds: of the result.
        fps: of the result; what the clip has fewer of is interpolated.
    """
    opened: list[Interpolating] = []

    def begin(first: Pixels, second: Pixels, timestep: float) -> Pending:
        if not opened:  # not at all where the engine gives every frame itself
            opened.append(serving(Interpolates).open_interpolator(InterpolateRequest(fps)))
        return opened[0].begin(first, second, timestep)

    count, rate = round(seconds * fps), Fraction(fps)
    shown = ((at / clip.fps, frame) for at, frame in enumerate(clip.frames))
    frames = in_order(retimed_at(shown, count, rate, begin, 1 / clip.fps))
    with current_store().workspace() as folder:
        path = Path(folder) / "made"
        with FrameWriter(path, rate, video_tags(record)) as writer:
            for at, frame in enumerate(frames, 1):
                writer.add(frame)
                step(at, count)
        return keep_written(path, writer.media_type)


def clip_identity(mover: EngineIdentity, interpolator: EngineIdentity) -> EngineIdentity:
    """As what a clip counts whose missing frames are interpolated."""
    return EngineIdentity(
        engine_id=mover.engine_id,
        version=f"{mover.version}.{interpolator.engine_id}{interpolator.version}",
        weights=(*mover.weights, *interpolator.weights),
        device_class=interpolator.device_class,  # both work on the one that the settings name
    )
