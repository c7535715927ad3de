"""A row of numbers as a curve."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from safelight.media.lettering import Lettering
from safelight.media.sheets import INK, PAPER
from safelight.pixels import Pixels

_FAINT, _STRONG = (90, 90, 90), (255, 170, 60)
_MARGIN, _LETTERS = 44, 12
SMOOTH = 0.98
"""What a smoothed curve keeps of itself from value to value."""


def curve(values: Sequence[float], title: str, width: int = 640, height: int = 280) -> Pixels:
    """Draw values from left to right, faint as they are and strong as their moving average.

    Args:
        values: at least one, all finite.
        title: written above.
        width: of the picture, px.
        height: the same.

    Returns:
        (height, width, 3) uint8 sRGB.
    """
    plain = np.asarray(values, np.float64)
    smooth = smoothed(values)
    low, high = 0.0, float(np.quantile(plain, 0.99)) * 1.1 or 1.0
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)
    letters = Lettering(_LETTERS)
    across, down = width - _MARGIN - 8, height - 48
    for share in (0.0, 0.5, 1.0):
        at = 28 + down * (1 - share)
        draw.line((_MARGIN, at, _MARGIN + across, at), fill=(50, 50, 50))
        letters.draw(image, 2, int(at) - 7, f"{low + (high - low) * share:.3g}", INK)
    letters.draw(image, _MARGIN, 6, letters.shown(title), INK)
    letters.draw(image, _MARGIN, height - 17, f"step 1 to {len(plain)}", INK)
    for row, colour, thick in ((plain, _FAINT, 1), (smooth, _STRONG, 2)):
        places = np.linspace(0, across, len(row)) + _MARGIN
        heights = 28 + down * (1 - np.clip((row - low) / (high - low), 0, 1))
        points = [*zip(places.tolist(), heights.tolist(), strict=True)]
        draw.line(points if len(points) > 1 else points * 2, fill=colour, width=thick)
    return np.array(image)


def smoothed(values: Sequence[float]) -> np.ndarray:
    """The moving average of values, as if it had begun with their mean."""
    mean = 0.0
    found: list[float] = []
    for at, value in enumerate(values, 1):
        mean = SMOOTH * mean + (1 - SMOOTH) * value
        found.append(mean / (1 - SMOOTH**at))
    return np.asarray(found)
