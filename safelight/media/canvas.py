"""Pictures continued beyond their border, to a shape that their maker cannot give them."""

import numpy as np

from safelight.pixels import Pixels

FADE = 8
"""Pixels over which what lies at the border passes into the mean of the border."""


def on_canvas(image: Pixels, width: int, height: int) -> Pixels:
    """Lay a picture in the middle of a larger one; around it its border goes on and grows plain.

    Args:
        image: (h, w, 3) uint8.
        width: at least w.
        height: at least h.

    Returns:
        (height, width, 3) uint8; the picture itself is in it, unchanged.
    """
    tall = _continued(image, height)
    return _continued(tall.swapaxes(0, 1), width).swapaxes(0, 1)


def _continued(image: Pixels, length: int) -> Pixels:
    beyond = length - len(image)
    if beyond <= 0:
        return image
    before, after = beyond // 2, beyond - beyond // 2
    first, last = _faded(image[0], before)[::-1], _faded(image[-1], after)
    return np.concatenate([first, image, last])


def _faded(border: Pixels, count: int) -> Pixels:
    """`count` rows from a border outwards."""
    ours = np.clip(1 - np.arange(1, count + 1) / FADE, 0, 1)[:, None, None]
    rows = ours * border + (1 - ours) * border.mean(axis=0)
    return np.rint(rows).astype(np.uint8)
