"""How near pictures are to others, by features that nobody trained: colours and edges in places.

A picture is described by the mean CIELAB colour of 8 x 8 cells, and by how its edges run in each of
them (histograms of oriented gradients: Dalal and Triggs 2005). The distance of two pictures is the
mean of both differences, each divided by what it is between a picture and plain grey on an average,
so that 0 is the same picture and 1 nothing alike. It sees shape, place and colour; it does not know
who somebody is.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from safelight.media.colour import to_linear
from safelight.pixels import Pixels

SIDE, CELLS, DIRECTIONS = 64, 8, 9
COLOUR_UNIT, EDGE_UNIT = 30.0, 0.35
"""Mean differences per cell: in CIELAB units, and of unit histograms."""
SHIFTS = (-3, 0, 3)
"""By how much one of them is moved to find a better fit, of 64 px."""


def distances(pictures: Sequence[Pixels], references: Sequence[Pixels]) -> list[float]:
    """How far each picture is from the nearest of the references.

    Args:
        pictures: (H, W, 3) uint8 sRGB each.
        references: the same; at least one.
    """
    known = [_described(_squared(one)) for one in references]
    found: list[float] = []
    for picture in pictures:
        square = _squared(picture)
        views = [_described(_moved(square, dx, dy)) for dx in SHIFTS for dy in SHIFTS]
        found.append(min(_apart(view, other) for view in views for other in known))
    return found


def _squared(pixels: Pixels) -> NDArray[np.float32]:
    """(SIDE, SIDE, 3) float32, 0 to 1; what is not square is cut at both sides."""
    high, wide = pixels.shape[:2]
    side = min(high, wide)
    left, top = (wide - side) // 2, (high - side) // 2
    image = Image.fromarray(pixels).crop((left, top, left + side, top + side))
    scaled = image.resize(
        (SIDE, SIDE), Image.Resampling.BOX if side > SIDE else Image.Resampling.BICUBIC
    )
    return np.asarray(scaled, np.float32) / np.float32(255)


def _moved(picture: NDArray[np.float32], right: int, down: int) -> NDArray[np.float32]:
    """What comes in repeats the border."""
    margin = max(map(abs, SHIFTS))
    wide = np.pad(picture, ((margin,) * 2, (margin,) * 2, (0, 0)), mode="edge")
    return wide[margin - down :, margin - right :][:SIDE, :SIDE]


def _described(picture: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    size = SIDE // CELLS
    lab = _lab(picture).reshape(CELLS, size, CELLS, size, 3).mean((1, 3))
    grey = picture.mean(2)
    down, right = np.gradient(grey)
    length = np.hypot(down, right)
    way = (np.arctan2(down, right) % np.pi) / np.pi * DIRECTIONS
    places = np.minimum(way.astype(int), DIRECTIONS - 1)
    edges = np.zeros((CELLS, CELLS, DIRECTIONS), np.float32)
    rows, columns = np.indices(grey.shape) // size
    np.add.at(edges, (rows, columns, places), length)
    return lab.astype(np.float32), edges / (np.linalg.norm(edges, axis=2, keepdims=True) + 0.5)


def _apart(
    first: tuple[NDArray[np.float32], NDArray[np.float32]],
    second: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> float:
    colours = np.linalg.norm(first[0] - second[0], axis=2).mean() / COLOUR_UNIT
    edges = np.linalg.norm(first[1] - second[1], axis=2).mean() / EDGE_UNIT
    return float(colours + edges) / 2


def _lab(srgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """CIELAB of the D65 white, from sRGB (IEC 61966-2-1)."""
    linear = to_linear(srgb)
    matrix = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    scaled = linear @ matrix.T / np.array([0.95047, 1.0, 1.08883])
    bent = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    light = 116 * bent[..., 1] - 16
    stacked = np.stack(
        [light, 500 * (bent[..., 0] - bent[..., 1]), 200 * (bent[..., 1] - bent[..., 2])], -1
    )
    return stacked.astype(np.float32)
