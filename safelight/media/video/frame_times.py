"""When the frames of a video file are shown, counted rather than believed."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from safelight.errors import InvalidMediaError
from safelight.media.video.opening import (
    CONTAINERS,
    MKV,
    breaks_off,
    codec_name,
    media_errors,
    no_frames,
    opened,
)

if TYPE_CHECKING:
    from av import VideoStream
    from av.container import InputContainer

LONGEST_RATE = 100_000
"""Largest denominator of a frame rate that is worked out from frame times."""
LONGEST_FRAME = 3600
"""Seconds a frame is shown on the average: slide shows change faster."""
ROUNDED_END = Fraction(1, 10)
"""Seconds a whole MKV may end before the duration in its header."""
UNKNOWN_RATE = Fraction(25)
"""Of a file with no times at all."""
FINEST_TICK = Fraction(1, 1_000_000_000)
"""Seconds; how finely frames with one and the same time are told apart."""
DECODED_TO_COUNT = frozenset({"mpeg1video", "mpeg2video", "mpeg4", "h263", "vc1", "wmv3", "vp8"})
"""Codecs whose packets may hold no picture, or two."""
BROADCAST_RATES = tuple(
    Fraction(rate * 1000, 1000 + ntsc)
    for rate in (24, 25, 30, 48, 50, 60, 100, 120, 240)
    for ntsc in (0, 1)
)
"""Tried for files whose header does not name their rate exactly."""


@dataclass(frozen=True)
class FrameTimes:
    """When each frame is shown, in the order of showing."""

    ticks: Sequence[int]
    """Start of each frame; strictly rising."""
    end: int
    """When the last one ends, ticks; above its start."""
    tick: Fraction
    """Seconds."""
    moved: int = 0
    """Frames whose time was missing or that of another frame."""
    hidden: int = 0
    """Packets of the picture that show nothing."""

    @property
    def start_seconds(self) -> Fraction:
        """When the first frame is shown."""
        return self.ticks[0] * self.tick

    def lasts(self, index: int) -> int:
        """How long a frame is shown, ticks."""
        after = self.ticks[index + 1] if index + 1 < len(self.ticks) else self.end
        return after - self.ticks[index]

    def since_start(self) -> Iterator[Fraction]:
        """Seconds from the first frame to each."""
        return ((shown - self.ticks[0]) * self.tick for shown in self.ticks)


def read_times(path: Path, first: int | None) -> FrameTimes:
    """Walk through a file.

    Packets are counted, which is quick. Where they are no reliable account of what is shown (hidden
    frames, equal or missing times, pictures that only refer to what was cut off), frames are
    decoded and counted instead.

    Args:
        path: the video.
        first: time stamp of the first frame that can be decoded.

    Raises:
        InvalidMediaError: no frame, or the file breaks off.
    """
    with opened(path) as (container, stream):
        times, end, sound = _of_packets(container, stream, path)
        tick = stream.time_base or Fraction(1, 1000)
        spacing = _spacing(stream, tick)
        sound = sound and codec_name(stream) not in DECODED_TO_COUNT
    packets = len(times)
    if not sound or not times or first != times[0]:
        times, end = _of_frames(path, spacing)
    told = _told_apart(times, end, tick, spacing)
    _require_rate(told, path)
    return replace(told, hidden=max(packets - len(times), 0))


def _require_rate(times: FrameTimes, path: Path) -> None:
    """Refuse frames that are so far apart that they have no rate."""
    length = (times.end - times.ticks[0]) * times.tick
    if length > len(times.ticks) * LONGEST_FRAME:
        raise InvalidMediaError(
            f"the {len(times.ticks)} frames of {path.name} span {float(length):.0f} s, at most "
            f"{LONGEST_FRAME} s for each are taken",
            "export the video again, its times are damaged",
        )


def _of_packets(
    container: "InputContainer", stream: "VideoStream", path: Path
) -> tuple[Sequence[int], int, bool]:
    """Times, the end, and whether each packet seems to be a frame; refuses what breaks off."""
    times, end, last_second = array("q"), 0, Fraction(0)
    demuxed, missing = 0, False
    # an edit list may leave packets out for good
    listed = min(stream.frames, len(stream.index_entries))
    with media_errors(path):
        for packet in container.demux():
            if packet.size == 0:
                continue
            if packet.is_corrupt:
                raise breaks_off(path, f"packet {demuxed} is damaged")
            shown = packet.pts
            if shown is not None:
                ends = shown + (packet.duration or 0)
                last_second = max(last_second, ends * packet.time_base)
            if packet.stream is stream:
                demuxed += 1
                if packet.is_discard:
                    continue
                if shown is None:
                    missing = True
                    continue
                times.append(shown)
                end = max(end, shown + (packet.duration or 0))
    if not demuxed:
        raise no_frames(path)
    if demuxed < listed:
        raise breaks_off(path, f"it holds {demuxed} frames, its index lists {listed}")
    promised = Fraction(container.duration or 0, 1_000_000)
    if CONTAINERS.get(container.format.name) == MKV and promised - last_second > ROUNDED_END:
        raise breaks_off(
            path, f"it ends after {float(last_second):.1f} s of {float(promised):.1f} s"
        )
    ordered = array("q", sorted(times))
    distinct = all(one < two for one, two in pairwise(ordered))
    return ordered, end, distinct and not missing


def _of_frames(path: Path, spacing: int) -> tuple[Sequence[int], int]:
    """The same of decoded frames; times never fall."""
    times, end = array("q"), 0
    with opened(path) as (container, stream), media_errors(path):
        for frame in container.decode(stream):
            before = times[-1] if times else None
            shown = frame.pts
            if shown is None:
                shown = 0 if before is None else before + spacing
            if before is not None:
                shown = max(shown, before)
            times.append(shown)
            end = max(end, shown + (frame.duration or 0))
    if not times:
        raise no_frames(path)
    return times, end


def _spacing(stream: "VideoStream", tick: Fraction) -> int:
    """Ticks per frame by the header."""
    rate = stream.average_rate or stream.guessed_rate or UNKNOWN_RATE
    return max(round(1 / (rate * tick)), 1)


def _told_apart(times: Sequence[int], end: int, tick: Fraction, spacing: int) -> FrameTimes:
    """Frames that share a time are spread evenly until the next one."""
    if end <= times[-1]:
        end = times[-1] + spacing
    groups: list[list[int]] = []
    for shown in times:
        if groups and groups[-1][0] == shown:
            groups[-1][1] += 1
        else:
            groups.append([shown, 1])
    if len(groups) == len(times):
        return FrameTimes(times, end, tick)
    finer = max(count for _, count in groups)
    if tick / finer < FINEST_TICK:
        finer = 1
    spread = array("q")
    for index, (shown, count) in enumerate(groups):
        after = groups[index + 1][0] if index + 1 < len(groups) else end
        for each in range(count):
            at = shown * finer + each * (after - shown) * finer // count
            spread.append(max(at, spread[-1] + 1) if spread else at)
    moved = len(times) - len(groups)
    return FrameTimes(spread, max(end * finer, spread[-1] + 1), tick / finer, moved)


def told_rates(stream: "VideoStream") -> tuple[Fraction, ...]:
    """What a file says of its rate, the most trustworthy first."""
    told = (stream.average_rate, stream.base_rate, stream.guessed_rate)
    return tuple(rate for rate in told if rate)


def rate_of(times: FrameTimes, told: tuple[Fraction, ...]) -> tuple[Fraction, Fraction]:
    """Frames per second: exact where it is constant, else the mean; and the farthest that any frame
    is shown from there, seconds: 0 within one tick.

    Args:
        times: of all frames.
        told: rates that are tried first.
    """
    length = (times.end - times.ticks[0]) * times.tick
    mean = (len(times.ticks) / length).limit_denominator(LONGEST_RATE)
    near = sorted(BROADCAST_RATES, key=lambda rate: abs(rate - mean))[:2]
    whole = Fraction(max(round(mean), 1))
    rates = [rate for rate in (*told, *near, whole, mean) if rate]
    jitters = [_jitter(times, rate) for rate in rates]
    for rate, jitter in zip(rates, jitters, strict=True):
        if jitter <= times.tick:
            return rate, Fraction(0)
    return mean, jitters[-1]


def _jitter(times: FrameTimes, rate: Fraction) -> Fraction:
    every = 1 / (rate * times.tick)  # ticks per frame
    up, down = every.numerator, every.denominator  # whole numbers are much faster
    first = times.ticks[0]
    worst = max(abs((shown - first) * down - i * up) for i, shown in enumerate(times.ticks))
    return Fraction(worst, down) * times.tick
