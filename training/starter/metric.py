"""Tells which reference picture a drawn one resembles most, by features that nobody trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2lab
from skimage.feature import hog
from skimage.filters import gaussian

from training.starter.render import SIDE, on_background, place, subject_glyph
from training.starter.subjects import SUBJECTS

Pixels = NDArray[np.uint8]
CELL = 8
"""Side of the cells in which colours are averaged and edges counted, px."""
ORIENTATIONS = 9
"""Directions of edges that are told apart, over 180 degrees."""
BLUR = 0.7
"""Standard deviation before edges are counted, px: noise is no edge."""
FAINT = 1e-4
"""Contrast is multiplied by this; the library's constant of 1e-5 then stands for a tenth of full
contrast, and a flat ground with faint noise has no edges instead of edges of unit length."""
SHIFTS = (-3, 0, 3)
"""By how much a picture is moved along each axis to find a better fit, px; half a cell is 4."""
SIZES = (52, 56, 60)
"""Longer side of the reference glyphs, px; training pictures have 51 to 59."""


@dataclass(frozen=True)
class Match:
    """What a picture resembles most."""

    subject: int
    """Index of the subject."""
    distance: float
    """To its reference; 1 is the mean distance between the references of two subjects."""
    margin: float
    """How much farther the nearest other subject is."""


@dataclass(frozen=True)
class References:
    """Features of every subject's reference picture, in several sizes."""

    features: NDArray[np.float32]
    """Shape (n, d), scaled so that 1 is the mean distance between two subjects."""
    subjects: NDArray[np.int64]
    """Shape (n,): index of the subject of each row."""
    weights: NDArray[np.float32]
    """Shape (d,): what raw features are multiplied by."""


def raw_features(picture: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Describe one picture: what colour is where, and which edges are where.

    Args:
        picture: (SIDE, SIDE, 3) uint8 sRGB.

    Returns:
        Mean CIELAB colours of 8 x 8 cells, shape (192,), and the histograms of oriented
        gradients of the same cells, each 2 x 2 of them normalised, shape (1764,).

    Source:
        Dalal and Triggs 2005, histograms of oriented gradients.
    """
    lab = rgb2lab(picture).astype(np.float32)
    count = SIDE // CELL
    colours = lab.reshape(count, CELL, count, CELL, 3).mean(axis=(1, 3)).ravel()
    edges = hog(
        gaussian(picture, BLUR, channel_axis=-1) * FAINT,
        orientations=ORIENTATIONS,
        pixels_per_cell=(CELL, CELL),
        cells_per_block=(2, 2),
        block_norm="L2",
        channel_axis=-1,
    )
    return colours, np.asarray(edges, np.float32)


def moved(picture: Pixels, right: int, down: int) -> Pixels:
    """Move a picture; what comes in is white."""
    margin = max(abs(right), abs(down))
    wide = np.pad(picture, ((margin,) * 2, (margin,) * 2, (0, 0)), constant_values=255)
    return wide[margin - down :, margin - right :][:SIDE, :SIDE]


@cache
def references() -> References:
    """Describe the reference of every subject, once a process (a few seconds)."""
    described: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    for index in range(len(SUBJECTS)):
        glyph = subject_glyph(index)
        described += [raw_features(on_background(place(glyph, size))) for size in SIZES]
    colours, edges = (np.stack(part) for part in zip(*described, strict=True))
    # Colour and edges count the same: each is divided by its mean distance between subjects.
    scales = [1 / (_mean_distance(part[1 :: len(SIZES)]) * np.sqrt(2)) for part in (colours, edges)]
    weights = np.repeat(scales, [colours.shape[1], edges.shape[1]]).astype(np.float32)
    return References(
        np.concatenate((colours, edges), axis=1) * weights,
        np.repeat(np.arange(len(SUBJECTS)), len(SIZES)),
        weights,
    )


def with_another(known: References, pictures: Sequence[Pixels]) -> References:
    """The references with one more subject, whose index is the next.

    Args:
        known: those that there are.
        pictures: (SIDE, SIDE, 3) uint8 sRGB each, of the new subject in several sizes.
    """
    rows = [np.concatenate(raw_features(picture)) * known.weights for picture in pictures]
    index = int(known.subjects.max()) + 1
    return References(
        np.concatenate([known.features, np.stack(rows)]),
        np.concatenate([known.subjects, np.full(len(rows), index, known.subjects.dtype)]),
        known.weights,
    )


def nearest(picture: Pixels, known: References | None = None) -> Match:
    """Find the subject whose reference is nearest, over small shifts and sizes.

    Args:
        picture: (SIDE, SIDE, 3) uint8 sRGB.
        known: the references; None is those of the starter model.

    Raises:
        ValueError: another shape or type.
    """
    if picture.shape != (SIDE, SIDE, 3) or picture.dtype != np.uint8:
        raise ValueError(
            f"picture is {picture.shape} {picture.dtype}, expected ({SIDE}, {SIDE}, 3) uint8"
        )
    known = known or references()
    shifted = [moved(picture, right, down) for right in SHIFTS for down in SHIFTS]
    rows = np.stack([np.concatenate(raw_features(view)) for view in shifted]) * known.weights
    distances = np.sqrt(np.maximum(_squared_distances(rows, known.features), 0)).min(axis=0)
    best = np.full(int(known.subjects.max()) + 1, np.inf)
    np.minimum.at(best, known.subjects, distances)
    first, second = np.argsort(best, stable=True)[:2]
    return Match(int(first), float(best[first]), float(best[second] - best[first]))


def _squared_distances(
    rows: NDArray[np.float32], others: NDArray[np.float32]
) -> NDArray[np.float32]:
    squares = (rows**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None]
    return squares - 2 * rows @ others.T


def _mean_distance(rows: NDArray[np.float32]) -> float:
    apart = np.sqrt(np.maximum(_squared_distances(rows, rows), 0))
    return float(apart.sum() / (len(rows) * (len(rows) - 1)))
