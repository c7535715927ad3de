"""What an enlarging network wiped away: a source's fine texture and its grain, put back.

Networks take skin, cloth and the grain of a film for dirt. Whatever of the source is missing in the
result, averaged down to the source's size, is laid over it again where there are no edges; in waves
too short for the source, grain of the same strength goes on.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from PIL import Image

from safelight.media.boxes import box_mean
from safelight.media.denoising import noise_deviation
from safelight.media.noise import in_channels, white_row
from safelight.pixels import Floats, Pixels

Kind = Literal["photograph", "drawing"]

BLOCK = 8
"""Side of the squares that are looked at for being flat, that of JPEG's."""
FLAT_RANGE = 1
"""Levels by which the pixels of a flat square differ at most."""
DRAWN_SHARE = 0.2
"""Part of the squares that are flat from which a picture counts as a drawing: photographs of every
kind have 0 to 0.1, drawings, screens and logos 0.2 to 0.85."""
STRUCTURE_LEVELS = 10.0
"""Local deviation of the network's result, levels, at which half of what is missing is put back:
skin, sky and cloth lie below it, edges and strands of hair above it."""
NOISE_IN_STRUCTURE = 2.0
"""The same, in deviations of the source's noise, which networks leave in parts."""
AROUND = 2
"""Half the side of the square in which structure and grain are measured, source px."""
REACH = 4 * AROUND
"""Source rows around a band that its pixels depend on."""
FRESH_SHARE = 0.05
"""Variance of what lies in waves too short for the source, over that of the source's grain:
interpolated, noise keeps 0.8 of its variance."""
ROUNDING = 1 / 12
"""Variance that rounding to whole levels adds by itself."""
ONE_WAY = 0.3, 0.6
"""Coherence of the network's finest waves from which they count as strands, and wholly so: grain
has 0.02 to 0.3, fur 0.4 to 0.9."""
BAND_PIXELS = 1 << 19
"""Pixels of the result worked on at once: 6 MB for each array of floats."""
LUMA: Floats = np.array([0.299, 0.587, 0.114], np.float32)


def flat_share(image: Pixels) -> float:
    """Part of the 8x8 squares of (H, W, 3) uint8 whose pixels are the same within one level."""
    height, width = (side // BLOCK * BLOCK for side in image.shape[:2])
    if not height or not width:
        return 0.0
    squares = image[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK, -1)
    spread = squares.max(axis=(1, 3)) - squares.min(axis=(1, 3))
    return float((spread.max(axis=-1) <= FLAT_RANGE).mean())


def kind_of(images: Iterable[Pixels]) -> tuple[Kind, float]:
    """Whether pictures, the frames of a clip for instance, are drawn, and the measure of it."""
    shares = [flat_share(image) for image in images]
    share = float(np.median(shares)) if shares else 0.0
    return ("drawing" if share > DRAWN_SHARE else "photograph"), share


def put_back(
    source: Pixels, made: Pixels, strength: float, seed: int, frame: int = 0, *, lines: bool = False
) -> Pixels:
    """Lay the texture and grain of a source over what a network made of it.

    Averaged down, the result comes to the source wherever it is flat; where the network draws
    structure its own pixels stay.

    Args:
        source: (H, W, 3) uint8.
        made: (H * n, W * n, 3) uint8, n from 1 on.
        strength: 0 changes nothing, 1 puts all of it back.
        seed: the same gives the same grain.
        frame: of a video or animation; the grain of each is independent of the others'.
        lines: whether the network draws lines where photographs have none: its result is then
            kept within the levels around each place of the source, and follows the source at edges
            too.

    Returns:
        (H * n, W * n, 3) uint8. The same bytes for the same input on every CPU.
    """
    height, width = source.shape[:2]
    factor = made.shape[0] // height
    if strength <= 0:
        return made
    limit = STRUCTURE_LEVELS**2 + (NOISE_IN_STRUCTURE * noise_deviation(source)) ** 2
    target = np.empty_like(made)
    rows = max(BAND_PIXELS // (width * factor * factor), 1)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        start, stop = max(top - REACH, 0), min(bottom + REACH, height)
        seen = source[start:stop].astype(np.float32)
        drawn = made[start * factor : stop * factor].astype(np.float32)
        if lines:
            drawn = _within(drawn, seen, factor)
        smaller = _averaged(drawn, factor)
        missing = seen - smaller
        calm = _calm(smaller, limit)
        inner = slice((top - start) * factor, (bottom - start) * factor)
        back = _returned(missing, calm, factor, lines=lines)[inner]
        if factor > 1:
            finer = drawn - _enlarged(smaller, factor)
            kept, grain = _shares(seen, finer, calm, factor)
            kept += (1 - kept) * _strands(drawn, factor)
            fresh = _fresh(factor, seed, frame, (top, bottom), width)
            back += _enlarged(grain, factor)[inner] * fresh
            back -= (_enlarged(1 - kept, factor) * finer)[inner]
        values = drawn[inner] + np.float32(strength) * back
        target[top * factor : bottom * factor] = np.clip(np.rint(values), 0, 255)
    return target


def with_fine_waves(source: Pixels, redrawn: Pixels, strength: float) -> Pixels:
    """Lay the finest waves of a source over a picture of the same size that shows other things.

    Where the two are the same nothing changes. What was redrawn keeps its shapes: only what lies
    within `AROUND` px is exchanged, and only where neither has structure.

    Args:
        source: (H, W, 3) uint8.
        redrawn: the same size.
        strength: 0 changes nothing, 1 exchanges all of it.
    """
    if strength <= 0:
        return redrawn
    limit = STRUCTURE_LEVELS**2 + (NOISE_IN_STRUCTURE * noise_deviation(source)) ** 2
    height, width = source.shape[:2]
    target = redrawn.copy()
    rows = max(BAND_PIXELS // width, 1)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        start, stop = max(top - REACH, 0), min(bottom + REACH, height)
        before, after = (each[start:stop].astype(np.float32) for each in (source, redrawn))
        difference = before - after
        fine = difference - box_mean(difference, AROUND)
        calm = np.minimum(_calm(before, limit), _calm(after, limit))
        values = np.clip(np.rint(after + np.float32(strength) * calm * fine), 0, 255)
        changed = difference.any(axis=2, keepdims=True)
        kept = np.where(changed, values, after).astype(np.uint8)
        target[top:bottom] = kept[top - start : bottom - start]
    return target


def _calm(smaller: Floats, limit: float) -> Floats:
    """(h, w, 1), 1 where the network drew nothing, falling to 0 at its edges."""
    grey: Floats = (smaller @ LUMA).astype(np.float32)
    mean = box_mean(grey, AROUND)
    variance = np.maximum(box_mean(grey * grey, AROUND) - mean * mean, 0)
    calm: Floats = (1 / (1 + variance / np.float32(limit))).astype(np.float32)
    return box_mean(calm, 1)[..., None]


def _shares(seen: Floats, finer: Floats, calm: Floats, factor: int) -> tuple[Floats, Floats]:
    """What is right for waves that the source cannot hold, where it is calm.

    Returns:
        (h, w, 1) each: the part of the network's own that stays, so that it is no stronger than
        grain would be there, and the deviation of the grain that is added.
    """
    fine = seen - box_mean(seen, AROUND)
    weight = box_mean(calm, AROUND)
    around = box_mean(calm * (fine * fine).mean(axis=2, keepdims=True), AROUND) / weight
    wanted = around * np.float32(FRESH_SHARE)
    there = box_mean(_averaged(finer * finer, factor).mean(axis=2, keepdims=True), AROUND)
    kept = np.minimum(np.sqrt((wanted + ROUNDING) / (there + ROUNDING)), 1).astype(np.float32)
    lacking = np.sqrt(np.maximum(wanted - there - np.float32(ROUNDING), 0)).astype(np.float32)
    return 1 - calm * (1 - kept), calm * lacking


def _strands(drawn: Floats, factor: int) -> Floats:
    """(h, w, 1), 1 where the finest waves run one way, as hair does, 0 where they run every way.

    Source:
        Bigun, Granlund 1987, Optimal Orientation Detection of Linear Symmetry: coherence of the
        structure tensor.
    """
    grey = (drawn @ LUMA).astype(np.float32)
    fine = grey - box_mean(grey, factor)
    wider = np.pad(fine, ((0, 1), (0, 1)), "edge")
    falling, rising = wider[1:, 1:] - wider[:-1, :-1], wider[1:, :-1] - wider[:-1, 1:]
    down, across = falling + rising, falling - rising
    products = np.stack([down * down, across * across, down * across], axis=2, dtype=np.float32)
    tall, wide, both = np.moveaxis(box_mean(_averaged(products, factor), AROUND), 2, 0)
    spread = np.sqrt((tall - wide) ** 2 + 4 * both * both)
    coherence = spread / (tall + wide + np.float32(ROUNDING))
    low, high = ONE_WAY
    share = np.clip((coherence - low) / (high - low), 0, 1)
    return (share * share * (3 - 2 * share)).astype(np.float32)[..., None]


def _fresh(factor: int, seed: int, frame: int, span: tuple[int, int], width: int) -> Floats:
    """Grain in waves too short for the source, deviation 1: its mean over each source px is 0."""
    top, bottom = span
    drawn = np.stack(
        [
            white_row(row, width * factor, seed, frame)
            for row in range(top * factor, bottom * factor)
        ]
    )
    field = in_channels(drawn)
    field -= _averaged(field, factor).repeat(factor, axis=0).repeat(factor, axis=1)
    return field * np.float32((1 - factor**-2) ** -0.5)


def _within(drawn: Floats, seen: Floats, factor: int) -> Floats:
    """A network's result between the darkest and lightest of the 3x3 source px around each."""
    lowest, highest = _extreme(seen, np.minimum), _extreme(seen, np.maximum)
    return np.clip(
        drawn,
        lowest.repeat(factor, axis=0).repeat(factor, axis=1),
        highest.repeat(factor, axis=0).repeat(factor, axis=1),
    )


def _extreme(values: Floats, choose: np.ufunc) -> Floats:
    for axis in (0, 1):
        wide = np.pad(values, [(1, 1) if at == axis else (0, 0) for at in range(3)], "edge")
        length = values.shape[axis]
        parts = [wide.take(range(at, at + length), axis=axis) for at in range(3)]
        values = choose(choose(parts[0], parts[1]), parts[2])
    return values


def _averaged(values: Floats, factor: int) -> Floats:
    """(h, w, 3) of (h * factor, w * factor, 3)."""
    height, width = values.shape[0] // factor, values.shape[1] // factor
    total = np.zeros((height, width, 3), np.float32)
    for down in range(factor):
        for across in range(factor):
            total += values[down::factor, across::factor]
    return total / np.float32(factor * factor)


def _returned(missing: Floats, calm: Floats, factor: int, *, lines: bool) -> Floats:
    """What is missing, enlarged so that its average comes back to itself where it is calm.

    Source:
        Irani, Peleg 1991, Improving Resolution by Image Registration: one step of it.
    """
    returned = calm * missing
    if factor == 1:
        return missing if lines else returned
    lost: Floats = returned - _averaged(_enlarged(returned, factor), factor)
    return _enlarged(lost + (missing if lines else returned), factor)


def _enlarged(values: Floats, factor: int) -> Floats:
    """Bicubic."""
    if factor == 1:
        return values
    size = values.shape[1] * factor, values.shape[0] * factor
    planes = (Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(values, 2, 0))
    return np.stack([np.asarray(each.resize(size, Image.Resampling.BICUBIC)) for each in planes], 2)
