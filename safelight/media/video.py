"""Decoding, mapping and encoding videos one frame at a time; sound is carried over untouched.

Pixels are (H, W, 3) uint8 sRGB, upright. Files are H.264 in MP4, colours tagged BT.709. Memory does
not grow with the length of a clip, and the same frames give the same bytes.
"""

import errno
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from safelight.errors import DiskFullError, ForbiddenPathError, InvalidMediaError, MissingFileError
from safelight.media.behind import Behind
from safelight.progress import note, step

if TYPE_CHECKING:
    from av import AudioStream, Packet, VideoFrame, VideoStream
    from av.container import InputContainer
    from av.stream import Stream

    AnyPacket = Packet[Stream]

Pixels = NDArray[np.uint8]

MP4, MKV = "video/mp4", "video/x-matroska"
CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2": MP4, "matroska,webm": MKV}
"""FFmpeg's names of the containers that are read. A list, because others (HLS, concat) open files
that their text names."""
MP4_SOUND = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"})
"""Sound that players expect in MP4; anything else goes into MKV."""
X264 = {"crf": "16", "preset": "medium", "mbtree": "0"}
"""Visually lossless. Macroblock trees are off, because x264 reads memory there that it never wrote:
the same frames would give other bytes each time."""
ENCODER_THREADS = 4
"""Fixed, because x264's output depends on it."""
BT709, BT601 = 1, 5
"""Colour matrices as FFmpeg numbers them."""
FRAMES_BEHIND = 4
"""Frames, and packets of sound, that wait for the encoder while the next frame is made."""
LIMITED, FULL = 1, 2
"""Ranges of luma: 16 to 235, or 0 to 255."""
LONGEST_RATE = 100_000
"""Largest denominator of a frame rate that is worked out from frame times."""
OFFSET_STEPS = 100
"""Ticks per frame where the picture starts later than the sound, so that neither is moved."""
ROUNDED_END = Fraction(1, 10)
"""Seconds a whole MKV may end before the duration in its header."""
HD_LINES = 720
"""From this height on, players read colours without a tag as BT.709, below it as BT.601."""
WIDE_TRANSFERS = {16: "PQ", 18: "HLG"}
"""Transfer curves of high dynamic range, which 8-bit sRGB cannot hold."""
BROADCAST_RATES = tuple(
    Fraction(rate * 1000, 1000 + ntsc)
    for rate in (24, 25, 30, 48, 50, 60, 100, 120, 240)
    for ntsc in (0, 1)
)
"""Tried for files whose header does not name their rate exactly."""


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


def probe(path: Path) -> VideoInfo:
    """Read a video's facts by walking through all of its packets and decoding the first frame.

    Raises:
        MissingFileError: there is no such file.
        InvalidMediaError: not MP4, MOV, MKV or WebM, no video in it, no frame, breaks off, or of
            high dynamic range.
    """
    with _opened(path) as (container, stream):
        first = next(_frames(container, stream, path), None)
        if first is None:
            raise _no_frames(path)
        height, width = first.shape[:2]
    with _opened(path) as (container, stream):
        times, end = _times(container, stream, path)
        tick = stream.time_base or Fraction(1, 1000)
        rate, jitter = _rate(times, end, tick, stream)
        audio = bool(container.streams.audio)
        media_type = _media_type(container, path)
    frames = len(times)
    return VideoInfo(
        width=width,
        height=height,
        frames=frames,
        fps=rate,
        duration_seconds=frames / rate,
        has_audio=audio,
        media_type=media_type,
        start_seconds=times[0] * tick,
        jitter_seconds=jitter,
    )


def read_frames(path: Path) -> Iterator[Pixels]:
    """Decode frame by frame.

    Yields:
        (H, W, 3) uint8 sRGB, turned upright.

    Raises:
        InvalidMediaError: see `probe`; also a frame that is damaged.
    """
    with _opened(path) as (container, stream):
        yield from _frames(container, stream, path)


class FrameWriter:
    """Encodes frames as they come; the file appears at `target` only when all went well.

    Use as a context manager. Whatever is raised inside leaves no file behind.
    """

    def __init__(
        self,
        target: Path,
        fps: Fraction,
        tags: dict[str, str],
        sound: Sequence["AudioStream"] = (),
        pixel_aspect: Fraction | None = None,
        start_seconds: Fraction = Fraction(0),
    ) -> None:
        """Open the partial file.

        Args:
            target: the file to make; its extension plays no part, see `media_type`.
            fps: frames per second of the result.
            tags: container metadata, for instance `comment`; any key survives.
            sound: sound tracks to carry over from another container, packet by packet.
            pixel_aspect: width over height of one pixel; None is square.
            start_seconds: when `add` shows the first frame, on the clock of the sound.
        """
        import av

        self._target = target
        self._partial = target.with_name(f".part-{target.name}")
        self._fps = fps
        self._pixel_aspect = pixel_aspect
        self._start_seconds = start_seconds
        self._video: VideoStream | None = None
        self._size = (0, 0)
        self._early: list[AnyPacket] = []
        self._lasts: dict[int, int] = {}
        foreign = sorted({s.codec_context.name for s in sound} - MP4_SOUND)
        self.media_type = MKV if foreign else MP4
        """MP4, or MKV where MP4 cannot hold the sound."""
        if foreign:
            note(
                f"sound is {', '.join(foreign)}, which MP4 does not hold: the result is an MKV file"
            )
        self.frames = 0
        """Frames added so far."""
        with _disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(
                str(self._partial),
                "w",
                format="matroska" if foreign else "mp4",
                options={"fflags": "+bitexact"}
                if foreign
                else {"fflags": "+bitexact", "movflags": "+faststart+use_metadata_tags"},
            )
        self._container.metadata.update(tags)
        self._sound = list(sound)
        self._tracks: dict[int, AudioStream] = {}

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file, or remove what there is of it."""
        try:
            if kind is None:
                self._finish()
        finally:
            try:
                with _disk_errors(self._target):
                    self._container.close()
            finally:
                self._partial.unlink(missing_ok=True)

    def add(self, pixels: Pixels) -> None:
        """Append one frame, (H, W, 3) uint8 sRGB, 1 / fps after the one before."""
        steps = OFFSET_STEPS if self._start_seconds else 1
        tick = 1 / (self._fps * steps)
        pts = self.frames * steps + round(self._start_seconds / tick)
        self._append(pixels, pts, steps, tick, X264)

    def add_at(self, pixels: Pixels, pts: int, duration: int, tick: Fraction) -> None:
        """Append one frame at a time of its own.

        Args:
            pixels: (H, W, 3) uint8 sRGB; all frames of one file have the same size.
            pts: when to show it, in ticks; later than the frame before.
            duration: how long to show it, in ticks.
            tick: seconds per tick; the same for all frames.
        """
        # MP4 counts durations in decoding order: without B-frames that is the order of showing
        self._append(pixels, pts, duration, tick, X264 | {"bf": "0"})

    def _append(
        self, pixels: Pixels, pts: int, duration: int, tick: Fraction, options: dict[str, str]
    ) -> None:
        from av import VideoFrame

        height, width = pixels.shape[:2]
        if self._video is None:
            self._video = self._start(width, height, tick, options)
        if (width, height) != self._size:
            raise InvalidMediaError(
                f"frame {self.frames} is {width}x{height} px, the frames before it are "
                f"{self._size[0]}x{self._size[1]} px",
                "give all frames of a video one size",
            )
        rgb = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = rgb.reformat(
            format=self._video.pix_fmt,
            dst_colorspace=BT709,
            src_color_range=FULL,
            dst_color_range=LIMITED,
            interpolation=_exact_scaling(),
        )
        frame.color_primaries = frame.color_trc = BT709
        frame.pts = pts
        frame.time_base = self._video.codec_context.time_base
        self._lasts[pts] = duration
        self.frames += 1
        self._mux(self._video.encode(frame))

    def add_sound(self, packet: "AnyPacket") -> None:
        """Carry over one packet of a sound track given as `sound`, bit for bit."""
        if self._video is None:
            self._early.append(packet)
            return
        packet.stream = self._tracks[packet.stream.index]
        with _disk_errors(self._target):
            self._container.mux(packet)

    def _start(
        self, width: int, height: int, tick: Fraction, options: dict[str, str]
    ) -> "VideoStream":
        even = width % 2 == 0 and height % 2 == 0
        if not even:
            note(
                f"{width}x{height} px is odd: colour is kept at full resolution (4:4:4), "
                "which some players cannot show"
            )
        stream = self._container.add_stream("libx264", rate=self._fps, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p" if even else "yuv444p"
        context = stream.codec_context
        context.time_base = tick
        context.thread_count = ENCODER_THREADS
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = LIMITED
        if self._pixel_aspect:
            context.sample_aspect_ratio = self._pixel_aspect
        for source in self._sound:
            self._tracks[source.index] = self._container.add_stream_from_template(source)
        self._size = (width, height)
        self._video = stream
        for packet in self._early:
            self.add_sound(packet)
        self._early.clear()
        return stream

    def _mux(self, packets: "list[AnyPacket]") -> None:
        with _disk_errors(self._target):
            for packet in packets:
                packet.duration = self._lasts.pop(packet.pts or 0)
                self._container.mux(packet)

    def _finish(self) -> None:
        if self._video is None:
            raise InvalidMediaError(
                "no frame was given for the video, expected at least 1", "pass frames to encode"
            )
        self._mux(self._video.encode(None))
        with _disk_errors(self._target):
            self._container.close()  # writes the index; what fails here must not be renamed
            self._partial.replace(self._target)


def write_video(
    target: Path, frames: Iterable[Pixels], fps: Fraction, tags: dict[str, str] | None = None
) -> VideoInfo:
    """Encode frames without sound.

    Args:
        target: the file to make; always MP4.
        frames: (H, W, 3) uint8 sRGB each, all of one size, at least one.
        fps: frames per second.
        tags: container metadata.
    """
    with FrameWriter(target, fps, tags or {}) as writer:
        for pixels in frames:
            writer.add(pixels)
    return replace(probe(target), media_type=writer.media_type)


def map_frames(
    source: Path, target: Path, fn: Callable[[Pixels], Pixels], tags: dict[str, str]
) -> VideoInfo:
    """Decode, change and encode frame by frame; frame times and sound stay as they are.

    Args:
        source: the video to read.
        target: the file to make; MP4, or MKV where MP4 cannot hold the sound (`media_type` of the
            result tells, the extension plays no part).
        fn: from (H, W, 3) uint8 sRGB to the same of any one size.
        tags: container metadata.

    Raises:
        InvalidMediaError: see `probe`.
        StopRequestedError: the run was asked to stop; no file is left.
        DiskFullError: no room is left for the target.
    """
    return transform_frames(source, target, lambda frames: map(fn, frames), tags)


def transform_frames(
    source: Path,
    target: Path,
    fn: Callable[[Iterator[Pixels]], Iterator[Pixels]],
    tags: dict[str, str],
    *,
    fps: Fraction | None = None,
    frames: int | None = None,
) -> VideoInfo:
    """`map_frames` for work that looks at several frames or makes more of them.

    Args:
        source: the video to read.
        target: see `map_frames`.
        fn: from an iterator over the frames to one over the new frames; called once.
        tags: container metadata.
        fps: rate of the result; None keeps the time of each frame, `fn` then gives one for one.
        frames: how many frames `fn` will give, for the progress; None says as many as there are.
    """
    info = probe(source)
    total = frames or info.frames
    even = fps is not None or info.jitter_seconds == 0
    rate = fps or info.fps
    times: list[int] = []
    if not even:
        with _opened(source) as (container, stream):
            shown_at, end = _times(container, stream, source)
            times = [*shown_at, max(end, shown_at[-1] + 1)]
    with _opened(source) as (container, stream):
        sound = [track for track in container.streams.audio if track.codec_context.name]
        writer = FrameWriter(
            target, rate, tags, sound, stream.sample_aspect_ratio or None, info.start_seconds
        )
        with writer, Behind(FRAMES_BEHIND) as encoding:
            send_sound = partial(encoding.call, writer.add_sound)

            def decoded() -> Iterator[Pixels]:
                read = 0
                for shown in _frames(container, stream, source, sound, send_sound):
                    read += 1
                    yield shown
                if read != info.frames:
                    raise _breaks_off(source, f"{read} of {info.frames} frames can be decoded")

            source_frames = decoded()
            for index, pixels in enumerate(fn(source_frames)):
                if even:
                    encoding.call(writer.add, pixels)
                else:
                    lasts = times[index + 1] - times[index]
                    tick = stream.time_base or 1 / rate
                    encoding.call(writer.add_at, pixels, times[index], lasts, tick)
                step(index + 1, max(index + 1, total))
            for _ in source_frames:
                pass  # what is left of the sound lies behind the last frame that `fn` asked for
    return replace(probe(target), media_type=writer.media_type)


@contextmanager
def _opened(path: Path) -> "Generator[tuple[InputContainer, VideoStream]]":
    import av
    from av.stream import Disposition

    if not path.is_file():
        raise MissingFileError(f"no file at {path}", "check the path")
    with _media_errors(path):
        container = av.open(
            str(path),
            options={
                "format_whitelist": ",".join(CONTAINERS),
                "protocol_whitelist": "file",
            },
        )
    with container:
        cover = Disposition.attached_pic
        streams = [s for s in container.streams.video if not s.disposition & cover]
        if not streams:
            raise InvalidMediaError(
                f"{path.name} holds no video stream, expected one", "give a file with a picture"
            )
        streams[0].thread_type = "AUTO"  # pyright: ignore[reportAttributeAccessIssue]
        yield container, streams[0]


def _frames(
    container: "InputContainer",
    stream: "VideoStream",
    path: Path,
    sound: "Sequence[AudioStream]" = (),
    forward: "Callable[[AnyPacket], None]" = lambda packet: None,
) -> Iterator[Pixels]:
    """Frames in the order they are shown; packets of `sound` go to `forward` as they are met."""
    packets = container.demux([stream, *sound])
    while True:
        with _media_errors(path):
            packet = next(packets, None)
        if packet is None:
            return
        if packet.stream is not stream:
            if packet.dts is not None:  # the empty packet at the end flushes decoders
                forward(packet)
            continue
        with _media_errors(path):
            frames = stream.decode(packet)
        for frame in frames:
            if frame.is_corrupt:
                raise InvalidMediaError(
                    f"{path.name} is damaged at {float(frame.time or 0):.2f} s",
                    "export the video again",
                )
            yield _pixels(frame, path)


def _pixels(frame: "VideoFrame", path: Path) -> Pixels:
    wide = WIDE_TRANSFERS.get(frame.color_trc)
    if wide:
        raise InvalidMediaError(
            f"{path.name} is high dynamic range ({wide}), expected standard range",
            "export it as SDR (BT.709)",
        )
    matrix = frame.colorspace
    if matrix == 2:  # no tag
        matrix = BT709 if frame.height >= HD_LINES else BT601
    full = frame.color_range == FULL or frame.format.name.startswith("yuvj")
    rgb: Pixels = frame.reformat(
        format="rgb24",
        src_colorspace=matrix,
        src_color_range=FULL if full or frame.format.is_rgb else LIMITED,
        dst_color_range=FULL,
        interpolation=_exact_scaling(),
    ).to_ndarray()  # pyright: ignore[reportAssignmentType] - rgb24 is uint8
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


def _exact_scaling() -> int:
    from av.video.reformatter import Interpolation as Scaling

    return Scaling.BICUBIC | Scaling.ACCURATE_RND | Scaling.FULL_CHR_H_INT | Scaling.FULL_CHR_H_INP


def _times(
    container: "InputContainer", stream: "VideoStream", path: Path
) -> "tuple[array[int], int]":
    """When each frame is shown and when the last ends, in ticks; refuses a file that breaks off."""
    times, end, last_second = array("q"), 0, Fraction(0)
    demuxed = 0
    with _media_errors(path):
        for packet in container.demux():
            if packet.pts is None or packet.size == 0:
                continue
            if packet.is_corrupt:
                raise _breaks_off(path, f"packet {demuxed} is damaged")
            ends = packet.pts + (packet.duration or 0)
            last_second = max(last_second, ends * packet.time_base)
            if packet.stream is stream:
                demuxed += 1
                if not packet.is_discard:
                    times.append(packet.pts)
                    end = max(end, ends)
    if not times:
        raise _no_frames(path)
    if demuxed < stream.frames:
        raise _breaks_off(path, f"it holds {demuxed} frames, its index lists {stream.frames}")
    promised = Fraction(container.duration or 0, 1_000_000)
    if CONTAINERS.get(container.format.name) == MKV and promised - last_second > ROUNDED_END:
        raise _breaks_off(
            path, f"it ends after {float(last_second):.1f} s of {float(promised):.1f} s"
        )
    return array("q", sorted(times)), end


def _rate(
    times: "array[int]", end: int, tick: Fraction, stream: "VideoStream"
) -> tuple[Fraction, Fraction]:
    """Frames per second, and the farthest any frame is from that, see `VideoInfo`."""
    length = (end - times[0]) * tick
    if length <= 0:
        length = len(times) / (stream.average_rate or Fraction(25))
    mean = (len(times) / length).limit_denominator(LONGEST_RATE)
    near = sorted(BROADCAST_RATES, key=lambda rate: abs(rate - mean))[:2]
    named = (stream.average_rate, stream.base_rate, stream.guessed_rate, *near, mean)
    rates = [rate for rate in named if rate]
    jitters = [_jitter(times, tick, rate) for rate in rates]
    for rate, jitter in zip(rates, jitters, strict=True):
        if jitter <= tick:
            return rate, Fraction(0)
    return mean, jitters[-1]


def _jitter(times: "array[int]", tick: Fraction, rate: Fraction) -> Fraction:
    every = 1 / (rate * tick)  # ticks per frame
    up, down = every.numerator, every.denominator  # whole numbers are much faster
    worst = max(abs((shown - times[0]) * down - i * up) for i, shown in enumerate(times))
    return Fraction(worst, down) * tick


def _media_type(container: "InputContainer", path: Path) -> str:
    if container.metadata.get("major_brand") == "qt  ":
        return "video/quicktime"
    kind = CONTAINERS[container.format.name]
    return "video/webm" if kind == MKV and path.suffix.lower() == ".webm" else kind


def _no_frames(path: Path) -> InvalidMediaError:
    return InvalidMediaError(
        f"{path.name} holds 0 video frames, expected at least 1", "export the video again"
    )


def _breaks_off(path: Path, found: str) -> InvalidMediaError:
    return InvalidMediaError(f"{path.name} breaks off: {found}", "export or upload it again")


@contextmanager
def _media_errors(path: Path) -> Generator[None]:
    import av.error

    try:
        yield
    except av.error.FFmpegError as error:
        raise InvalidMediaError(
            f"{path.name} ({path.stat().st_size} bytes) cannot be read as a video: "
            f"{error.strerror}; expected MP4, MOV, MKV or WebM",
            "export the video again as MP4",
        ) from error


@contextmanager
def _disk_errors(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"no room left to write {path}", "free space or move VOLUME_ROOT to a larger disk"
            ) from error
        raise ForbiddenPathError(
            f"{path}: {error.strerror}", "give this user read and write rights on the folder"
        ) from error
