"""Flicker of brightness and colour: measured between frames, and taken out of each.

From one frame to the next, parts of the picture are found again wherever they have moved, and the
median of how their levels changed is the change of the light: what moves, enters or leaves moves no
median. The changes add up to the path of the light through a scene. Its fast part is the flicker.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from safelight.media.images import rounded
from safelight.media.video.cuts import is_cut
from safelight.pixels import Floats, Pixels

Path = NDArray[np.float64]
"""(frames, 3): logarithm of the light in red, green and blue, from 0 at the first frame."""

LONG_SIDE = 96
"""Frames are averaged down to about this many pixels first: noise vanishes."""
BLOCK, STEP, REACH = 12, 8, 6
"""Side of the parts that are found again, from one to the next, and how far away they are looked
for; pixels of the small frame."""
FLAT = 1.0
"""Standard deviation, 8-bit levels, below which a part looks the same wherever it is."""
IN_PLACE, FOUND = 0.97, 0.85
"""Correlation from which a part is not looked for elsewhere, and from which it was found at all."""
WAYS = 3
"""Ways that parts have gone which others are tried on first, besides none."""
DARKEST, BRIGHTEST = 12.0, 240.0
"""Mean levels between which a part tells of the light; beyond, some of it is cut off."""
FEWEST = 4
"""Parts from which a median is trusted."""
SMOOTH_FRAMES = 10.0
"""Standard deviation of the window over which light is taken to change slowly, frames."""
WINDOW = 30
"""Where the window ends on each side, frames."""
TRENDS = (8, WINDOW)
"""Frames on each side in which light that goes one way is a fade or a lamp, and no flicker; the
larger number so that no frame long before a lamp is moved towards its light."""
LUMA = np.array((0.299, 0.587, 0.114), np.float32)


def light_paths(frames: Iterable[Pixels]) -> Iterator[Path]:
    """The light of each scene; one frame and a small one are in memory at a time.

    Args:
        frames: (H, W, 3) uint8 sRGB, all of one size.

    Yields:
        For each scene, in order, its path; as many rows together as there are frames.
    """
    before: tuple[Pixels, Floats] | None = None
    path: list[NDArray[np.float64]] = []
    for frame in frames:
        small = _small(frame)
        if before is not None and is_cut(before[0], frame):
            yield np.array(path)
            path = []
        elif before is not None:
            path.append(path[-1] + _change(before[1], small))
        if not path:
            path.append(np.zeros(3))
        before = frame, small
    if path:
        yield np.array(path)


def corrections(path: Path, level: float) -> Floats:
    """What each frame of a scene is multiplied with.

    The path is smoothed by a line that is fitted around each frame with Gaussian weights (Cleveland
    1979, Robust Locally Weighted Regression, without the robust part), which leaves an even fade
    alone up to its ends; the frame is moved onto the line. Where the light around a frame only goes
    one way, nothing is: how much is moved falls with the part of all change that is lasting.

    Args:
        path: of one scene.
        level: 0 to 1, the part of the flicker that is taken out.

    Returns:
        (frames, 3), above 0.
    """
    fitted = np.array([_fitted(path, at) for at in range(len(path))])
    moved = level * (1 - _lasting(path)) * (fitted - path)
    return np.exp(moved).astype(np.float32)


def relit(frame: Pixels, gains: Floats) -> Pixels:
    """A frame whose channels are multiplied, in sRGB levels.

    Args:
        frame: (H, W, 3) uint8.
        gains: (3,). A factor in linear light is very nearly one in sRGB levels too, its 2.2th
            root; levels that flicker had cut off at white stay lost.
    """
    made = np.empty_like(frame)
    levels = np.arange(256, dtype=np.float32)
    for channel, gain in enumerate(gains):
        made[..., channel] = rounded(levels * gain)[frame[..., channel]]
    return made


def _fitted(path: Path, at: int) -> NDArray[np.float64]:
    start, stop = max(at - WINDOW, 0), min(at + WINDOW + 1, len(path))
    away = np.arange(start, stop) - at
    weights = np.exp(-0.5 * (away / SMOOTH_FRAMES) ** 2)
    near = path[start:stop]
    whole, first, second = (float((weights * away**power).sum()) for power in (0, 1, 2))
    spread = whole * second - first * first
    if spread < 1e-9:  # one frame alone
        return near.mean(axis=0)
    of_each = weights * (second - first * away) / spread
    return of_each @ near


def _lasting(path: Path) -> Path:
    """0 where light around a frame comes back to what it was, 1 where it only goes one way."""
    steps = np.abs(np.diff(path, axis=0))
    walked = np.concatenate((np.zeros((1, 3)), steps.cumsum(axis=0)))
    at = np.arange(len(path))
    lasting = np.zeros_like(path)
    for reach in TRENDS:
        start, stop = np.maximum(at - reach, 0), np.minimum(at + reach, len(path) - 1)
        gone = np.abs(path[stop] - path[start])
        lasting = np.maximum(lasting, gone / np.maximum(walked[stop] - walked[start], 1e-9))
    return lasting


def _change(first: Floats, second: Floats) -> NDArray[np.float64]:
    """Logarithm of how the levels of each channel changed: the median over the parts found again.

    0 where too few of them are neither dark nor blown out.
    """
    pairs = list(_pairs(first, second))
    change = np.zeros(3)
    for channel in range(3):
        ratios = [
            np.log(two[channel] / one[channel])
            for one, two in pairs
            if DARKEST < one[channel] < BRIGHTEST and DARKEST < two[channel] < BRIGHTEST
        ]
        if len(ratios) >= FEWEST:
            change[channel] = np.median(ratios)
    return change


def _pairs(first: Floats, second: Floats) -> Iterator[tuple[Floats, Floats]]:
    """Mean red, green and blue of parts of one frame, and of where they are in the other."""
    height, width = first.shape[:2]
    side = min(BLOCK, height, width)
    lumas = first @ LUMA, second @ LUMA
    around = np.pad(lumas[1], REACH, mode="edge")
    ways = [(0, 0)]  # parts beside each other mostly move alike: tried before all others
    for top in range(0, height - side + 1, STEP):
        for left in range(0, width - side + 1, STEP):
            part = lumas[0][top : top + side, left : left + side]
            there = lumas[1][top : top + side, left : left + side]
            if part.std() < FLAT:
                if there.std() < 2 * FLAT:
                    yield _mean(first, top, left, side), _mean(second, top, left, side)
                continue
            way = _known_way(part, around, top, left, ways)
            if way is None:
                area = around[top : top + side + 2 * REACH, left : left + side + 2 * REACH]
                found, down, across = _best(part, area)
                if found < FOUND:
                    continue
                way = down - REACH, across - REACH
                ways = [(0, 0), way, *ways[1:WAYS]]
            down, across = top + way[0], left + way[1]
            if 0 <= down <= height - side and 0 <= across <= width - side:
                yield _mean(first, top, left, side), _mean(second, down, across, side)


def _known_way(
    part: Floats, around: Floats, top: int, left: int, ways: list[tuple[int, int]]
) -> tuple[int, int] | None:
    """Where a part has gone, if it went as one before it did."""
    side = part.shape[0]
    centred = part - part.mean()
    length = float(np.sqrt((centred * centred).sum()))
    for way in ways:
        down, across = top + way[0] + REACH, left + way[1] + REACH
        there = around[down : down + side, across : across + side]
        other = there - there.mean()
        lengths = length * float(np.sqrt((other * other).sum()))
        if float((centred * other).sum()) >= IN_PLACE * lengths > 0:
            return way
    return None


def _mean(frame: Floats, top: int, left: int, side: int) -> Floats:
    return frame[top : top + side, left : left + side].mean(axis=(0, 1))


def _best(part: Floats, area: Floats) -> tuple[float, int, int]:
    """The place of an area that correlates best with a part: correlation, row and column."""
    side = part.shape[0]
    windows = sliding_window_view(area, (side, side)).reshape(-1, side * side)
    centred = windows - windows.mean(axis=1, keepdims=True)
    pattern = (part - part.mean()).ravel()
    lengths = np.linalg.norm(centred, axis=1) * np.linalg.norm(pattern)
    scores = centred @ pattern / np.maximum(lengths, 1e-6)
    best = int(scores.argmax())
    row, column = divmod(best, area.shape[1] - side + 1)
    return float(scores[best]), row, column


def _small(pixels: Pixels) -> Floats:
    """(h, w, 3), averaged to about LONG_SIDE pixels."""
    height, width = pixels.shape[:2]
    cell = max(round(max(height, width) / LONG_SIDE), 1)
    rows, columns = max(height // cell, 1), max(width // cell, 1)
    down, across = min(cell, height), min(cell, width)
    whole = pixels[: rows * down, : columns * across]
    lines = whole.reshape(rows, down, columns * across * 3).sum(axis=1, dtype=np.uint32)
    squares = lines.reshape(rows, columns, across, 3).sum(axis=2, dtype=np.float32)
    return squares / np.float32(down * across)
