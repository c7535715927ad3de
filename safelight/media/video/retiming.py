"""When frames are shown: frame rates, and which source frames an output frame lies between.

Times are exact fractions throughout; a float would drift by a frame within hours.
"""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np

from safelight.media.video.cuts import is_cut
from safelight.pixels import Pixels

Pending = Callable[[], Pixels]
"""Waits for a frame that was begun, and gives it; called once."""
T = TypeVar("T")

NOMINAL_RATES = (24, 25, 30, 50, 60, 120, 240)
"""Frames per second by the names people call them."""
RATE_TOLERANCE = Fraction(15, 10_000)
"""29.97 is called 30 and is 0.1 % below it; the nearest two names, 24 and 25, lie 4 % apart."""
SPARSE = 16
"""Every so many lines are compared first: frames that differ mostly show it there."""
LONGEST_MOTION = Fraction(1, 6)
"""Seconds. A frame that is shown longer among others stands still, and motion to the next takes no
longer than from one frame to another before."""
REPEAT_CELL, REPEAT_CHANGE = 8, 2.0
"""A frame repeats the one before when no square of so many pixels changed by so many 8-bit levels
in the mean: what a second encoding leaves of equal frames stays below, moving lips do not."""


@dataclass(frozen=True)
class Moment:
    """Where an output frame lies in the source."""

    left: int
    """Index of the last source frame shown at or before it."""
    timestep: Fraction
    """How far it is on the way to the next one: 0 is the source frame itself, always below 1."""


def nominal_rate(fps: Fraction) -> int | None:
    """The rate's usual name, 30 for 30000/1001; None for rates that have none."""
    for rate in NOMINAL_RATES:
        if abs(fps / rate - 1) <= RATE_TOLERANCE:
            return rate
    return None


def exact_target(fps: Fraction, target: int) -> Fraction:
    """What a rate called `target` is for a source: 60000/1001 for 60 from 30000/1001.

    Args:
        fps: the source's exact rate.
        target: the name of the new one.
    """
    nominal = nominal_rate(fps)
    if nominal is not None:
        return fps * target / nominal
    ntsc = (fps * Fraction(1001, 1000)).denominator == 1
    return target * Fraction(1000, 1001) if ntsc else Fraction(target)


def frames_after(frames: int, source: Fraction, target: Fraction) -> int:
    """How many frames a clip has at another rate.

    Args:
        frames: frames of the clip.
        source: their rate.
        target: the new rate, not below `source`.

    Returns:
        Exactly as many as fill the clip's duration. Where that is no whole number the last one is
        kept, so that the result is longer than the source by less than one of its frames.
    """
    return math.ceil(frames * target / source)


def moment(index: int, frames: int, source: Fraction, target: Fraction) -> Moment:
    """Where output frame `index`, shown at index / target, lies in a clip of `frames` at `source`.

    The last source frame has no successor and is held.
    """
    position = index * source / target
    left = math.floor(position)
    if left >= frames - 1:
        return Moment(frames - 1, Fraction(0))
    return Moment(left, position - left)


def retimed(
    shown: Iterator[Pixels],
    frames: int,
    source: Fraction,
    target: Fraction,
    between: Callable[[Pixels, Pixels, float], T],
) -> Iterator[Pixels | T]:
    """Show a clip of an even rate at a higher one, see `retimed_at`.

    Args:
        shown: the source frames.
        frames: how many there are.
        source: their rate.
        target: the new rate, not below `source`.
        between: see `retimed_at`.
    """
    count = frames_after(frames, source, target)
    times = (index / source for index in range(frames))
    return retimed_at(zip(times, shown, strict=False), count, target, between, 1 / source)


def retimed_at(
    shown: Iterable[tuple[Fraction, Pixels]],
    count: int,
    target: Fraction,
    between: Callable[[Pixels, Pixels, float], T],
    usual: Fraction,
) -> Iterator[Pixels | T]:
    """Show a clip at an even, higher rate, two source frames in memory at a time.

    Source frames that fall on an output time are passed on as they are. Across a cut the nearest
    frame is repeated, and so it is where two frames are the same.

    Args:
        shown: seconds from the first frame, rising, and the source frames.
        count: how many frames to make.
        target: the new rate.
        between: makes the frame a fraction (0 to 1, both excluded) of the way from the first to
            the second, or begins to, see `in_order`; what it gives is passed on.
        usual: seconds from one frame to the next where nothing stands still.
    """
    source = iter(shown)
    left_at, left = next(source)
    right = next(source, None)
    blend: bool | None = None
    longest = max(usual, LONGEST_MOTION)
    for index in range(count):
        wanted = index / target
        while right is not None and right[0] <= wanted:
            if right[0] - left_at <= longest:
                usual = right[0] - left_at
            (left_at, left), right, blend = right, next(source, None), None
        if right is None or wanted == left_at:
            yield left
            continue
        begins = left_at if right[0] - left_at <= longest else right[0] - usual
        if wanted <= begins:
            yield left
            continue
        if blend is None:
            blend = not (is_same(left, right[1]) or is_cut(left, right[1]))
        timestep = (wanted - begins) / (right[0] - begins)
        if blend:
            yield between(left, right[1], float(timestep))
        else:
            yield left if timestep < Fraction(1, 2) else right[1]


class Distinct:
    """Frames without those that repeat the one before, as in animation drawn on twos."""

    def __init__(self, shown: Iterable[tuple[Fraction, Pixels]]) -> None:
        """Nothing is read yet.

        Args:
            shown: times, and frames.
        """
        self._shown = shown
        self.dropped = 0
        """How many were left out so far."""

    def __iter__(self) -> Iterator[tuple[Fraction, Pixels]]:
        """Each frame that differs from the last one given, with its time."""
        last: Pixels | None = None
        for time, pixels in self._shown:
            if last is not None and is_repeat(last, pixels):
                self.dropped += 1
                continue
            last = pixels
            yield time, pixels


def is_repeat(first: Pixels, second: Pixels) -> bool:
    """Whether a frame, (H, W, 3 or 4) uint8, is the one before once more, as encoders leave it."""
    height, width = (max(side // REPEAT_CELL, 1) for side in first.shape[:2])
    apart = np.maximum(first, second) - np.minimum(first, second)
    down, across = (
        min(REPEAT_CELL, first.shape[0]),
        min(REPEAT_CELL, first.shape[1]),
    )
    cells = apart[: height * down, : width * across].reshape(height, down, width, -1)
    return float(cells.mean(axis=(1, 3), dtype=np.float32).max()) < REPEAT_CHANGE


def in_order(frames: Iterable[Pixels | Pending]) -> Generator[Pixels]:
    """Give finished frames, a pending one only after the next pending one was begun.

    At most one pending frame and one behind it are held back, so that memory does not grow where
    none is begun for long. Closed early, it waits for none.
    """
    queue = deque[Pixels | Pending]()
    pending = 0
    for frame in frames:
        queue.append(frame)
        pending += callable(frame)
        while queue and (pending > 1 or len(queue) > 2 or not callable(queue[0])):
            first = queue.popleft()
            pending -= callable(first)
            yield first() if callable(first) else first
    for frame in queue:
        yield frame() if callable(frame) else frame


def is_same(first: Pixels, second: Pixels) -> bool:
    """Whether no pixel differs by more than one 8-bit level."""
    return all(
        int(np.max(np.maximum(one, two) - np.minimum(one, two))) <= 1
        for one, two in ((first[::SPARSE], second[::SPARSE]), (first, second))
    )
