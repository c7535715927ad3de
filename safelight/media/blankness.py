"""Whether a picture shows anything."""

import numpy as np

from safelight.pixels import Pixels

ALIKE_LEVELS = 3
"""Levels by which a pixel may differ from the middle of all and still count as the same."""
BLANK_SHARE = 0.999
"""Part of the pixels that are the same where a picture is blank: a dead pixel shows nothing."""


def blank_share(image: Pixels) -> float:
    """Part of the pixels that have the colour of the whole.

    Args:
        image: (H, W, 3) uint8 sRGB.

    Returns:
        0 to 1; 1 is one colour all over, from `BLANK_SHARE` on nothing is shown.
    """
    middle = np.median(image.reshape(-1, image.shape[2]), axis=0)
    same = (np.abs(image - middle) <= ALIKE_LEVELS).all(axis=2)
    return float(same.mean())
