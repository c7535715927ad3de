"""Frames of animated pictures: WebP, APNG, GIF and AVIF sequences."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from PIL import Image

from safelight.errors import InvalidMediaError
from safelight.media.layers import covered
from safelight.media.samples import shown
from safelight.media.still_source import ask_plugin, damage_named, taken_apart
from safelight.media.video.lossless import CODEC, OPTIONS
from safelight.pixels import Pixels
from safelight.settings import MEGAPIXEL

MOST_FRAMES = 10_000
"""More are a video's."""
TIMES_LARGER = 16
"""All frames together may have so many times the pixels that one picture may have."""
FINEST = 60_000
"""Largest denominator of seconds that are read from milliseconds with a fraction."""
HURRIED, UNHURRIED = Fraction(1, 100), Fraction(1, 10)
"""Browsers show frames of up to 10 ms for 100 ms."""
TRANSPARENT_CODEC = "ffv1"
"""Lossless with transparency."""
_TICK = Fraction(1, 1000)


@dataclass(frozen=True)
class Timing:
    """How an animation plays."""

    lasts: tuple[Fraction, ...]
    """Seconds each frame is shown, as the file says."""
    plays: int
    """How often all of it is shown; 0 is without end."""
    transparent: bool = False
    """Whether a frame is transparent in parts."""

    @property
    def rate_fps(self) -> float:
        """Frames per second, the mean of what browsers show."""
        return float(len(self.lasts) / sum(map(played, self.lasts)))


def played(lasts: Fraction) -> Fraction:
    """For how many seconds browsers show a frame."""
    return UNHURRIED if lasts <= HURRIED else lasts


def timing_of(data: bytes, max_megapixels: float | None = None) -> Timing:
    """Decode every frame of an animated picture.

    Args:
        data: the whole file.
        max_megapixels: of one picture; None takes any size.

    Raises:
        InvalidMediaError: a frame is missing or damaged, or there are more than are taken.
    """
    reader, lasts, transparent, pixels = _Reader(data), list[Fraction](), False, 0
    most = None if max_megapixels is None else TIMES_LARGER * max_megapixels * MEGAPIXEL
    for frame in reader.frames():
        lasts.append(reader.lasts)
        pixels += frame.shape[0] * frame.shape[1]
        transparent = transparent or frame.shape[2] == 4
        if len(lasts) > MOST_FRAMES or (most is not None and pixels > most):
            raise InvalidMediaError(
                f"the animation has {len(lasts)} frames or more of {frame.shape[1]}x"
                f"{frame.shape[0]} px, at most {MOST_FRAMES} frames and "
                f"{(most or 0) / MEGAPIXEL:.0f} megapixels in all are taken",
                "make a video of it, or give fewer frames",
            )
    return Timing(tuple(lasts), reader.plays, transparent)


def frames_of(data: bytes) -> Iterator[Pixels]:
    """Decode an animated picture frame by frame.

    Yields:
        (H, W, 3) uint8 sRGB, upright, or (H, W, 4) where some of the frame is transparent.

    Raises:
        InvalidMediaError: a frame is missing or damaged.
    """
    return _Reader(data).frames()


def write_as_video(data: bytes, target: Path, *, transparent: bool) -> None:
    """Make an MKV of an animated picture, shown once: its very pixels.

    Args:
        data: the whole file.
        target: is overwritten.
        transparent: whether a frame is transparent in parts, as its timing says.

    Raises:
        InvalidMediaError: a frame is missing or damaged.
    """
    import av

    reader = _Reader(data)
    codec, options, stored = (CODEC, OPTIONS, "rgb24")
    if transparent:
        codec, options, stored = TRANSPARENT_CODEC, {}, "bgra"
    with av.open(str(target), "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=Fraction(25), options=options)
        stream.pix_fmt = stored
        stream.codec_context.time_base = _TICK
        begins, lengths = Fraction(0), dict[int, int]()

        def mux(frame: av.VideoFrame | None) -> None:
            for packet in stream.encode(frame):
                packet.duration = lengths[packet.pts or 0]
                container.mux(packet)

        for pixels in reader.frames():
            if not begins:
                stream.height, stream.width = pixels.shape[:2]
            whole = covered(pixels) if transparent else pixels
            frame = av.VideoFrame.from_ndarray(whole, format="rgba" if transparent else "rgb24")
            if transparent:
                frame = frame.reformat(format=stored)  # the same bytes in another order
            frame.pts, frame.time_base = round(begins / _TICK), _TICK
            begins += played(reader.lasts)
            lengths[frame.pts] = round(begins / _TICK) - frame.pts
            mux(frame)
        mux(None)


class Sequence(Image.Image):
    """Frames as Pillow's writers of animations want them, of which only one is in memory."""

    def __init__(self, frames: Iterator[Pixels], count: int) -> None:
        """Read the first frame.

        Args:
            frames: (H, W, 4) uint8 with transparency, all of one size.
            count: how many come.
        """
        super().__init__()
        self.n_frames = count
        self._frames, self._at = frames, -1
        self.seek(0)

    def seek(self, frame: int) -> None:
        """Take the frame after this one; at the end, stay."""
        if frame <= self._at:
            return
        made = Image.fromarray(next(self._frames))
        self._at, self._mode, self._size = frame, made.mode, made.size
        self.im = made.im

    def tell(self) -> int:
        """The number of the frame, from 0."""
        return self._at


class _Reader:
    """Decodes one frame after the other."""

    def __init__(self, data: bytes) -> None:
        self.lasts = Fraction(0)
        """Seconds the frame read last is shown."""
        with damage_named("the animation is damaged"):
            self._source = taken_apart(data, [], animated=True)
            self._image = Image.open(io.BytesIO(self._source.data), formats=(self._source.found,))
            ask_plugin(self._source, self._image, [])
            self._at = 1 if self._image.info.get("default_image") else 0
            self.plays = _plays(self._source.found, self._image.info.get("loop"))
            """How often all of it is shown; 0 is without end."""
            # of a GIF it is only known at its end
            self._promised = 0 if self._source.found == "GIF" else self._image.n_frames  # pyright: ignore[reportAttributeAccessIssue]

    def frames(self) -> Iterator[Pixels]:
        with self._image:
            while (pixels := self._next()) is not None:
                yield pixels

    def _next(self) -> Pixels | None:
        with damage_named(f"frame {self._at + 1} of the animation breaks off or is damaged"):
            if self._promised and self._at >= self._promised:
                return None
            try:
                self._image.seek(self._at)
            except EOFError:
                if self._promised:
                    raise
                return None
            pixels = shown(self._image, self._source, [], animated=True)
            told = float(self._image.info.get("duration") or 0)
            self.lasts = max(Fraction(told) / 1000, Fraction(0)).limit_denominator(FINEST)
        self._at += 1
        return pixels


def _plays(found: str, loop: int | None) -> int:
    """GIF counts how often it starts again, and plays once where it says nothing."""
    if found == "GIF":
        return 1 if loop is None else loop + 1 if loop else 0
    return loop or 0
