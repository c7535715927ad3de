"""When frames are shown: frame rates, which source frames an output frame lies between, and cuts.

Times are exact fractions throughout; a float would drift by a frame within hours.
"""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Pending = Callable[[], Pixels]
"""Waits for a frame that was begun, and gives it; called once."""
T = TypeVar("T")

NOMINAL_RATES = (24, 25, 30, 50, 60, 120, 240)
"""Frames per second by the names people call them."""
RATE_TOLERANCE = Fraction(15, 10_000)
"""29.97 is called 30 and is 0.1 % below it; the nearest two names, 24 and 25, lie 4 % apart."""
CELL = 8
"""Side of the squares a frame is averaged over before frames are compared, pixels: noise and
small motion vanish, what is left is the layout of the picture."""
CUT_CHANGE = 24.0
"""Mean change of a cell above which frames may belong to two scenes, 8-bit levels."""
CUT_COLOURS = 0.18
"""Part of the cells whose colour is new above which they may; a pan keeps most of its colours.

Cuts of street footage measure 48 to 83 and 0.25 to 0.76; its fastest pan and passing lorries, and
hand-held objects elsewhere, at most 20 and 0.13."""
BINS = 8
"""Steps per colour channel when colours are counted."""

SPARSE = 16
"""Every so many lines are compared first: frames that differ mostly show it there."""


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
    """Show a clip at a higher rate, two source frames in memory at a time.

    Source frames that fall on an output time are passed on as they are. Across a cut the nearest
    frame is repeated, and so it is where two frames are the same.

    Args:
        shown: the source frames.
        frames: how many there are.
        source: their rate.
        target: the new rate, not below `source`.
        between: makes the frame a fraction (0 to 1, both excluded) of the way from the first to
            the second, or begins to, see `in_order`; what it gives is passed on.
    """
    left, right = next(shown), next(shown, None)
    at, blend = 0, None
    for index in range(frames_after(frames, source, target)):
        wanted = moment(index, frames, source, target)
        while at < wanted.left and right is not None:
            left, right, at, blend = right, next(shown, None), at + 1, None
        if wanted.timestep == 0 or right is None:
            yield left
            continue
        if blend is None:
            blend = not (is_same(left, right) or is_cut(left, right))
        if blend:
            yield between(left, right, float(wanted.timestep))
        else:
            yield left if wanted.timestep < Fraction(1, 2) else right


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


def is_cut(first: Pixels, second: Pixels) -> bool:
    """Whether two consecutive frames, (H, W, 3) uint8 sRGB, belong to different scenes.

    Both the layout and the colours must have changed: a fast pan changes only the layout, a lamp
    switched on mostly the colours.
    """
    change, colours = scene_change(first, second)
    return change > CUT_CHANGE and colours > CUT_COLOURS


def scene_change(first: Pixels, second: Pixels) -> tuple[float, float]:
    """Mean change of a cell in 8-bit levels, and the part of the cells whose colour is new."""
    one, two = _cells(first), _cells(second)
    change = float(np.abs(one - two).mean())
    counted = [_colours(cells) for cells in (one, two)]
    kept = np.minimum(*counted).sum() / counted[0].sum()
    return change, 1 - float(kept)


def _colours(cells: NDArray[np.float32]) -> NDArray[np.intp]:
    """How many cells have each of the BINS ** 3 colours."""
    steps = (cells * (BINS / 256)).astype(np.intp).reshape(-1, 3)
    return np.bincount(steps @ (BINS**2, BINS, 1), minlength=BINS**3)


def _cells(pixels: Pixels) -> NDArray[np.float32]:
    height, width = (max(side // CELL, 1) * CELL for side in pixels.shape[:2])
    whole = pixels[:height, :width]
    if whole.shape[:2] != (height, width):  # smaller than one cell
        missing = ((0, height - whole.shape[0]), (0, width - whole.shape[1]), (0, 0))
        whole = np.pad(whole, missing, mode="edge")
    rows = whole.reshape(height // CELL, CELL, width * 3).sum(axis=1, dtype=np.uint16)
    squares = rows.reshape(height // CELL, width // CELL, CELL, 3)
    return squares.sum(axis=2, dtype=np.float32) / CELL**2
