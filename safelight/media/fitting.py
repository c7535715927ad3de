"""Sizes that models can work on."""

import numpy as np
from PIL import Image

from safelight.errors import InvalidFieldValueError
from safelight.pixels import Pixels


def require_multiple(image: Pixels, grid: int, where: str) -> None:
    """Refuse a picture whose sides are no multiples of `grid` pixels; nothing is cropped silently.

    Raises:
        InvalidFieldValueError: with the size that was found and the next that fits.
    """
    height, width = image.shape[:2]
    if width % grid or height % grid:
        fits = f"{-(-width // grid) * grid}x{-(-height // grid) * grid}"
        raise InvalidFieldValueError(
            f"{where}: the picture is {width}x{height} px, sides must be multiples of {grid}",
            f"crop or scale it, for instance to {fits} px",
        )


def resized(image: Pixels, width: int, height: int) -> Pixels:
    """Lanczos resampling of (H, W, 3) or (H, W) uint8."""
    if image.shape[:2] == (height, width):
        return image
    scaled = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(scaled)
