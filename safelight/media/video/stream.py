"""Decoding, mapping and encoding videos one frame at a time; sound is carried over untouched.

Pixels are (H, W, 3) uint8 sRGB, upright; where a file has other primaries or another transfer
curve, they are that file's, and so are the tags of the result. Files are H.264 in MP4 or MKV; where
something is transparent, (H, W, 4) and VP9 in WebM or MKV.
Memory does not grow with the length of a clip, and the same frames give the same bytes.
"""

import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from safelight.confined.transport import Array
from safelight.media.behind import Behind
from safelight.media.layers import covering
from safelight.media.orientation import orientation_of, side_data_of
from safelight.media.video.colour import ColourTags, colour_tags, has_alpha
from safelight.media.video.decoding import Decoder
from safelight.media.video.encoding import X264, FrameWriter
from safelight.media.video.frame_times import FrameTimes, rate_of, read_times, told_rates
from safelight.media.video.opening import (
    CONTAINERS,
    MKV,
    WEBM,
    breaks_off,
    no_frames,
    opened,
    require_file,
)
from safelight.media.video.tracks import surroundings
from safelight.pixels import Pixels
from safelight.progress import note, step

__all__ = [
    "X264",
    "FrameWriter",
    "VideoInfo",
    "is_transparent",
    "probe",
    "read_frames",
    "read_layers",
    "transform_frames",
]


FRAMES_BEHIND = 4
"""Frames, and packets of sound, that wait for the encoder while the next frame is made."""
FILES_REMEMBERED = 8
"""Files whose facts are kept, so that a run walks through its input once."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds, counted rather than believed."""

    width: int
    """Pixels, once upright."""
    height: int
    """Pixels, once upright."""
    frames: int
    """Frames that are shown."""
    fps: Fraction
    """Frames per second, exact where the rate is constant, else the mean."""
    duration_seconds: Fraction
    """From the first frame to the end of the last."""
    has_audio: bool
    """Whether there is a sound track."""
    media_type: str
    """MIME type of the container."""
    start_seconds: Fraction = Fraction(0)
    """When the first frame is shown; not 0 where the sound starts earlier."""
    jitter_seconds: Fraction = Fraction(0)
    """The farthest that any frame is shown from where an even `fps` puts it; 0 when no farther than
    one tick of the file's clock."""
    pixel_aspect: Fraction = Fraction(1)
    """Width over height of one pixel, once upright."""


@dataclass(frozen=True)
class Walk:
    """What one walk through a file counted."""

    info: VideoInfo
    times: FrameTimes
    colours: ColourTags
    alpha: bool
    """Whether the first frame could be transparent."""


_known: OrderedDict[tuple[Path, int, int, int], Walk] = OrderedDict()
_lock = threading.Lock()


def probe(path: Path) -> VideoInfo:
    """Read a video's facts by walking through all of its packets and decoding the first frame.

    Raises:
        MissingFileError: there is no such file.
        InvalidMediaError: not MP4, MOV, MKV, WebM or MXF, no video in it, no frame, breaks off,
            or of high dynamic range.
    """
    return _facts(path).info


def frame_times(path: Path) -> FrameTimes:
    """When each frame is shown; raises as `probe`."""
    return _facts(path).times


def walked(path: str) -> tuple[Walk, Array | None]:
    """What `probe` counts, for the confined process: the times of frames as an array beside."""
    walk = _walk(Path(path))
    without = replace(walk, times=replace(walk.times, ticks=()))
    return without, np.asarray(walk.times.ticks, np.int64)


def remember_walk(path: Path, walk: Walk, ticks: Array | None) -> VideoInfo:
    """Take over what `walked` found, for the stages that read this file."""
    counted = array("q", b"" if ticks is None else ticks.astype(np.int64).tobytes())
    _remember(_key(path), replace(walk, times=replace(walk.times, ticks=counted)))
    return walk.info


def _facts(path: Path) -> Walk:
    require_file(path)
    key = _key(path)
    with _lock:
        known = _known.get(key)
    if known is None:
        known = _remember(key, _walk(path))
    return known


def _key(path: Path) -> tuple[Path, int, int, int]:
    """Tells files of one name apart."""
    stat = path.stat()
    return path, stat.st_size, stat.st_mtime_ns, stat.st_ino


def _remember(key: tuple[Path, int, int, int], walk: Walk) -> Walk:
    with _lock:
        _known[key] = walk
        _known.move_to_end(key)
        while len(_known) > FILES_REMEMBERED:
            _known.popitem(last=False)
    return walk


def _walk(path: Path) -> Walk:
    with opened(path) as (container, stream):
        decoder = Decoder(container, stream, path)
        first = next(decoder.frames(), None)
        if first is None:
            raise no_frames(path)
        height, width = decoder.shown(first).shape[:2]
        colours, alpha = colour_tags(first, stream), has_alpha(first)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        if orientation_of(first, side_data_of(first)).quarter:
            aspect = 1 / aspect
        first_time = first.pts
        rates = told_rates(stream)
        audio = bool(container.streams.audio)
        media_type = CONTAINERS[container.format.name]
        if container.metadata.get("major_brand") == "qt  ":
            media_type = "video/quicktime"
        elif media_type == MKV and path.suffix.lower() == ".webm":
            media_type = WEBM
    times = read_times(path, first_time)
    rate, jitter = rate_of(times, rates)
    frames = len(times.ticks)
    info = VideoInfo(
        width=width,
        height=height,
        frames=frames,
        fps=rate,
        duration_seconds=frames / rate,
        has_audio=audio,
        media_type=media_type,
        start_seconds=times.start_seconds,
        jitter_seconds=jitter,
        pixel_aspect=aspect,
    )
    return Walk(info, times, colours, alpha)


def is_transparent(path: Path) -> bool:
    """Whether any pixel of a video is; decodes up to the first one where the format could.

    Raises:
        InvalidMediaError: see `probe`.
    """
    if not _facts(path).alpha:
        return False
    with opened(path) as (container, stream):
        return Decoder(container, stream, path).is_transparent()


def read_frames(path: Path) -> Iterator[Pixels]:
    """Decode frame by frame.

    Yields:
        (H, W, 3) uint8 sRGB, turned upright.

    Raises:
        InvalidMediaError: see `probe`; also a frame that is damaged.
    """
    with opened(path) as (container, stream):
        yield from Decoder(container, stream, path).pixels()


def read_layers(path: Path) -> Iterator[Pixels]:
    """The same as `read_frames` as (H, W, 4): what is not seen has the colours around it."""
    with opened(path) as (container, stream):
        yield from Decoder(container, stream, path).layers()


def transform_frames(
    source: Path,
    target: Path,
    fn: Callable[[Iterator[Pixels]], Iterator[Pixels]],
    tags: dict[str, str],
    *,
    fps: Fraction | None = None,
    frames: int | None = None,
    layered: bool = False,
) -> VideoInfo:
    """Decode, change and encode frame by frame; frame times and sound stay as they are.

    Transparency is kept: `fn` gets the colours, and what it makes of each is laid under it again.

    Args:
        source: the video to read.
        target: the file to make; MP4, WebM where something is transparent, or MKV where that cannot
            hold the sound (`media_type` of the result tells, the extension plays no part).
        fn: from an iterator over the frames to one over the new frames; called once.
        tags: container metadata.
        fps: rate of the result; None keeps the time of each frame, `fn` then gives one for one.
        frames: how many frames `fn` will give, for the progress; None says as many as there are.
        layered: whether `fn` takes and gives (H, W, 4) where something is transparent; else
            it gives one frame for one.

    Raises:
        InvalidMediaError: see `probe`.
        StopRequestedError: the run was asked to stop; no file is left.
        DiskFullError: no room is left for the target.
    """
    facts = _facts(source)
    info, times = facts.info, facts.times
    total = frames or info.frames
    even = fps is not None or info.jitter_seconds == 0
    transparent = is_transparent(source)
    if transparent and not layered:
        fn = partial(covering, fn)
    with opened(source) as (container, stream):
        decoder = Decoder(container, stream, source)
        beside = surroundings(container, stream, transparent=transparent)
        writer = FrameWriter(
            target,
            fps or info.fps,
            tags,
            beside,
            None if info.pixel_aspect == 1 else info.pixel_aspect,
            info.start_seconds,
            facts.colours,
            transparent=transparent,
        )
        with writer, Behind(FRAMES_BEHIND) as encoding:
            carry = partial(encoding.call, writer.carry)

            def decoded() -> Iterator[Pixels]:
                read = 0
                shown_as = decoder.layers if transparent else decoder.pixels
                for shown in shown_as([track.source for track in beside.tracks], carry):
                    read += 1
                    yield shown
                if read != info.frames:
                    raise breaks_off(source, f"{read} of {info.frames} frames can be decoded")

            source_frames = decoded()
            for index, pixels in enumerate(fn(source_frames)):
                if even:
                    encoding.call(writer.add, pixels)
                else:
                    encoding.call(
                        writer.add_at, pixels, times.ticks[index], times.lasts(index), times.tick
                    )
                step(index + 1, max(index + 1, total))
            for _ in source_frames:
                pass  # what is left of the sound lies behind the last frame that `fn` asked for
    decoder.note_changes()
    if transparent:
        note("the video is transparent in parts: kept, so the result is VP9")
    if times.hidden:
        note(f"{times.hidden} packets of the picture show nothing: {info.frames} frames are shown")
    if times.moved:
        note(f"{times.moved} frames had no time of their own: spread evenly until the next")
    return replace(probe(target), media_type=writer.media_type)
