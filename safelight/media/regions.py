"""Cutting a part out of a picture, and laying a redrawn one back in without a seam."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from safelight.media.fitting import resized
from safelight.media.images import rounded
from safelight.pixels import Floats, Pixels
from safelight.progress import note

BLOCK = 8
"""Models draw sides that are multiples of this."""
LEAST_FEATHER = 0.06
"""Blended border as part of the crop's side, where the padding leaves less."""
FARTHEST_ABOVE = 2
"""A model draws up to so many times its own side before it doubles what it draws."""
STRONGEST_GAIN = 2.0
"""Contrast is matched within this factor either way: a flat crop would turn into noise."""


@dataclass(frozen=True)
class Box:
    """Where something was found, in pixels; may reach beyond the picture."""

    left: float
    """First column."""
    top: float
    """First row."""
    right: float
    """Where it ends."""
    bottom: float
    """Where it ends."""


@dataclass(frozen=True)
class Crop:
    """A part of a picture, inside it, and how wide the blend is along each of its edges."""

    rows: slice
    """From the first row to behind the last."""
    columns: slice
    """The same across."""
    feather: tuple[int, int, int, int]
    """Pixels at the top, bottom, left and right; 0 along the edge of the picture."""

    @property
    def height(self) -> int:
        """Pixels."""
        return self.rows.stop - self.rows.start

    @property
    def width(self) -> int:
        """Pixels."""
        return self.columns.stop - self.columns.start


def crop_around(box: Box, padding: float, height: int, width: int) -> Crop:
    """The square around a box, moved into the picture, cut where the picture is smaller.

    Args:
        box: what must lie inside.
        padding: room on each side, as part of the box's longer side.
        height: of the picture.
        width: of the picture.
    """
    side = round(max(box.right - box.left, box.bottom - box.top) * (1 + 2 * padding))
    rows = _span((box.top + box.bottom) / 2, side, height)
    columns = _span((box.left + box.right) / 2, side, width)
    top, bottom = _feathers(rows, box.top, box.bottom, height)
    left, right = _feathers(columns, box.left, box.right, width)
    return Crop(rows, columns, (top, bottom, left, right))


def drawing_size(crop: Crop, longest: int) -> tuple[int, int]:
    """Width and height, multiples of 8, in the shape of a crop.

    Args:
        crop: what will be drawn.
        longest: side of the longer side, a multiple of 8.
    """
    scale = longest / max(crop.width, crop.height)
    width, height = (
        max(round(side * scale / BLOCK), 1) * BLOCK for side in (crop.width, crop.height)
    )
    return width, height


def matched(redrawn: Pixels, original: Pixels) -> Floats:
    """Give a redrawn part the brightness, contrast and tint of the original.

    Args:
        redrawn: (h, w, 3) uint8.
        original: the same shape.

    Returns:
        (h, w, 3), 0 to 255, not rounded.

    Source:
        Reinhard et al. 2001, Color Transfer between Images, eq. 10 and 11, on sRGB channels:
        the two are nearly the same picture.
    """
    values, wanted = redrawn.astype(np.float32), original.astype(np.float32)
    spread = np.maximum(values.std(axis=(0, 1)), np.float32(1e-3))
    gain = wanted.std(axis=(0, 1)) / spread
    gain = np.clip(gain, 1 / STRONGEST_GAIN, STRONGEST_GAIN).astype(np.float32)
    mean = values.mean(axis=(0, 1))
    return np.clip((values - mean) * gain + wanted.mean(axis=(0, 1)), 0, 255).astype(np.float32)


def redrawn(
    picture: Pixels,
    boxes: Sequence[Box],
    padding: float,
    longest: int,
    draw: Callable[[Pixels, int], Pixels],
) -> Pixels:
    """Draw parts of a picture again, larger, and lay them back in.

    Args:
        picture: (H, W, 3) uint8; kept as it is.
        boxes: what to draw again, one after the other; later ones see the earlier ones' results.
        padding: room around each, see `crop_around`.
        longest: side that the model draws best, a multiple of 8. Larger crops are drawn at their
            own size; beyond twice the model's they are left as they are, and a note says so.
        draw: from (h, w, 3) uint8 and the index of the box to the same shape.

    Returns:
        A new picture; outside the crops it equals the given one to the bit.
    """
    target = picture.copy()
    height, width = picture.shape[:2]
    for index, box in enumerate(boxes):
        crop = crop_around(box, padding, height, width)
        side = max(crop.width, crop.height)
        if side > FARTHEST_ABOVE * longest:
            note(
                f"region {index + 1} takes {side} px, the model draws at most "
                f"{FARTHEST_ABOVE * longest} px: left as it is"
            )
            continue
        larger = drawing_size(crop, max(longest, -(-side // BLOCK) * BLOCK))
        made = draw(resized(picture_part(target, crop), *larger), index)
        blend_into(target, crop, resized(made, crop.width, crop.height))
    return target


def picture_part(picture: Pixels, crop: Crop) -> Pixels:
    """The pixels of a crop."""
    return picture[crop.rows, crop.columns]


def blend_into(picture: Pixels, crop: Crop, part: Pixels) -> None:
    """Lay a redrawn part into a picture; outside the crop nothing is written.

    Args:
        picture: (H, W, 3) uint8, changed.
        crop: where.
        part: (crop.height, crop.width, 3) uint8.
    """
    place = picture_part(picture, crop)
    original = place.astype(np.float32)
    mask = feathered(crop)[..., None]
    made: Floats = (original + mask * (matched(part, place) - original)).astype(np.float32)
    place[:] = rounded(made)


def feathered(crop: Crop) -> Floats:
    """How much of the redrawn part is seen, (crop.height, crop.width), 0 to 1."""
    top, bottom, left, right = crop.feather
    down = _ramp(crop.height, top) * _ramp(crop.height, bottom)[::-1]
    across = _ramp(crop.width, left) * _ramp(crop.width, right)[::-1]
    return (down[:, None] * across).astype(np.float32)


def _ramp(length: int, feather: int) -> Floats:
    """From 0 to 1 over the first pixels, without a corner at either end."""
    at = np.clip((np.arange(length) + 0.5) / max(feather, 0.5), 0, 1)
    return (at * at * (3 - 2 * at)).astype(np.float32)


def _span(centre: float, side: int, length: int) -> slice:
    side = min(max(side, 1), length)
    start = min(max(round(centre - side / 2), 0), length - side)
    return slice(start, start + side)


def _feathers(span: slice, low: float, high: float, length: int) -> tuple[int, int]:
    """Room between the box and the two ends of the crop; none where the picture ends."""
    least = round((span.stop - span.start) * LEAST_FEATHER)
    before = max(round(low) - span.start, least) if span.start > 0 else 0
    after = max(span.stop - round(high), least) if span.stop < length else 0
    return before, after
