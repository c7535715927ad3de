"""Sizes that pictures of a dataset get: few, so that batches are of one size."""

import math

import numpy as np
from PIL import Image

from safelight.engines.training import DatasetOptions
from safelight.pixels import Pixels


def bucket_of(
    width: int, height: int, options: DatasetOptions, native: int, multiple: int
) -> tuple[int, int]:
    """The size that a picture is trained at.

    Args:
        width: of the picture, px.
        height: the same.
        options: limits and steps.
        native: side that the model was trained at, px.
        multiple: what the model's sides have to be multiples of, px.

    Returns:
        Width and height, px: of all within the limits that have at most the area of `resolution`
        squared, those nearest to the picture's proportions; of equals the largest.
    """
    side = options.resolution or native
    if not options.enable_bucket:
        square = max(multiple, side // multiple * multiple)
        return square, square
    step = min(math.lcm(options.bucket_reso_steps, multiple), max(side // multiple, 1) * multiple)
    area = side**2
    if options.bucket_no_upscale:
        area = min(area, width * height)
    least = max(step, (options.min_bucket_reso or side // 2) // step * step)
    most = max(least, (options.max_bucket_reso or side * 2) // step * step)
    sides = range(least, most + 1, step)
    sizes = [(w, h) for w in sides for h in sides if w * h <= area] or [(least, least)]
    wanted = math.log(width / height)
    return min(sizes, key=lambda s: (round(abs(math.log(s[0] / s[1]) - wanted), 9), -s[0] * s[1]))


def fitted(pixels: Pixels, width: int, height: int) -> Pixels:
    """A picture scaled to cover a size, with what stands over cut off at both sides alike."""
    high, wide = pixels.shape[:2]
    if (wide, high) == (width, height):
        return pixels
    scale = max(width / wide, height / high)
    # rounded up, or a side may lack a pixel
    size = (max(width, round(wide * scale)), max(height, round(high * scale)))
    scaled = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.asarray(scaled.crop((left, top, left + width, top + height)))
