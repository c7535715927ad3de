"""Noise reduction in space and in time."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from safelight.media.guided import REACH, box_mean, smooth
from safelight.media.images import rounded

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
WORST_NOISE = 60.0
"""Variation taken for noise at level 1, in 8-bit levels: twice the deviation of a night shot, since
the filter halves what stands out by as much as this."""
BAND_ROWS = 512
"""Rows worked on at a time, so that memory does not grow with the picture."""
STEADY_SHARE = 0.7
"""Part of the past in a pixel that did not move, at most: the mean of about six frames."""


def smooth_edges_kept(image: Pixels, level: float) -> Pixels:
    """Take noise out of a picture in bands of rows, with no seam between them.

    Args:
        image: (H, W, 3) uint8 sRGB.
        level: 0 (nothing happens) to 1 (the worst noise there is).
    """
    if level == 0:
        return image
    height = image.shape[0]
    result = np.empty_like(image)
    for top in range(0, height, BAND_ROWS):
        bottom = min(top + BAND_ROWS, height)
        first, last = max(top - REACH, 0), min(bottom + REACH, height)
        band = smooth(image[first:last], 1.0, level * WORST_NOISE)
        result[top:bottom] = band[top - first : bottom - first]
    return result


def settle(frames: Iterator[Pixels], level: float) -> Iterator[Pixels]:
    """Average each pixel with its own past as long as it looks the same; one frame is kept.

    What moves, and everything after a cut, differs by more than noise does and is taken from the
    new frame alone, so nothing leaves a ghost.

    Args:
        frames: (H, W, 3) uint8 sRGB each, all of one size.
        level: as for `smooth_edges_kept`.

    Yields:
        As many frames as come.
    """
    spread = np.float32(max(level * WORST_NOISE / 4, 1e-3))
    past: Floats | None = None
    for frame in frames:
        now = frame.astype(np.float32)
        if past is not None:
            distance = np.abs(box_mean(now - past)).max(axis=2, keepdims=True)
            share = np.float32(STEADY_SHARE) * np.exp(-((distance / spread) ** 2))
            now += share * (past - now)
        past = now
        yield rounded(now)
