"""Laying what was drawn into a hole of a picture, so that its edge is not seen.

A feather alone lets what was there before shine through along the edge: whoever cuts out a thing to
have it gone would see its rim. So the feather holds only where old and new are alike, and what is
drawn is first brought to the colours that stand around the hole.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from safelight.media.boxes import box_mean
from safelight.media.images import rounded, to_float
from safelight.pixels import Floats, Pixels

ALIKE, UNLIKE = 8.0, 24.0
"""Levels of difference up to which old and new count as the same, and from which as two things."""
AROUND = 2
"""Half the side of the square in which they are compared, px."""
LEAST_REACH = 4.0
"""How far colours are brought together, px, where the feather is narrower."""
LEAST_AROUND = 0.02
"""Part of what lies within that reach that has to be outside the hole to go by it."""


def laid_in(before: Pixels, drawn: Pixels, hole: NDArray[np.bool_], feather: int) -> Pixels:
    """A picture with its hole filled; every pixel outside of it stays what it is.

    Args:
        before: (H, W, 3) uint8.
        drawn: the same size; also shows what lies around the hole.
        hole: (H, W), what is filled.
        feather: px inside the hole over which old and new go into each other where they are alike.
    """
    old = before.astype(np.float32)
    new = drawn.astype(np.float32)
    share = feathered(hole, feather)
    new += _offset(old - new, hole, max(2.0 * feather, LEAST_REACH))
    inside = hole.astype(np.float32)
    difference = box_mean(np.abs(new - old).max(axis=2) * inside, AROUND)
    difference /= np.maximum(box_mean(inside, AROUND), np.float32(1e-3))
    unlike = np.clip((difference - ALIKE) / (UNLIKE - ALIKE), 0, 1)
    share = np.where(hole, share + (1 - share) * unlike, 0)[..., None].astype(np.float32)
    filled = old + share * (np.clip(new, 0, 255) - old)
    return np.where(hole[..., None], rounded(filled.astype(np.float32)), before)


def feathered(hole: NDArray[np.bool_], blur: int) -> Floats:
    """(H, W): 1 deep inside the hole, falling to 0 at its edge and outside."""
    if blur == 0:
        return hole.astype(np.float32)
    white = Image.fromarray(hole.astype(np.uint8) * np.uint8(255))
    soft = np.asarray(white.filter(ImageFilter.GaussianBlur(blur)), np.float32)
    # a blurred edge is half grey: only the part above counts, so nothing leaks out of the hole
    return np.where(hole, np.clip(soft / 127.5 - 1, 0, 1), 0).astype(np.float32)


def _offset(difference: Floats, hole: NDArray[np.bool_], reach: float) -> Floats:
    """By how much the colours around the hole differ, carried into it: (H, W, 3).

    Source:
        Knutsson, Westin 1993, Normalized and Differential Convolution.
    """
    around = (~hole).astype(np.float32)
    weight = _smoothed(around, reach)
    planes = [_smoothed(difference[..., at] * around, reach) for at in range(3)]
    carried = np.stack(planes, axis=2) / np.maximum(weight, np.float32(LEAST_AROUND))[..., None]
    inward = np.minimum(2 * weight, 1)[..., None]  # all of it at the edge, less inside
    return (carried * inward).astype(np.float32)


def _smoothed(values: Floats, reach: float) -> Floats:
    """Means over about so many px around, by way of a smaller picture."""
    height, width = values.shape
    small = max(round(width / reach), 1), max(round(height / reach), 1)
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    back = image.resize(small, Image.Resampling.BILINEAR).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return np.clip(np.asarray(back, np.float32), values.min(), values.max())


def on_black(mask: Pixels) -> Pixels:
    """(H, W, 3) of (H, W, 3 or 4) uint8: where a mask is transparent, nothing was painted.

    Editors save strokes on a transparent layer.
    """
    if mask.shape[2] == 3:
        return mask
    return rounded(mask[..., :3] * to_float(mask[..., 3:]))
