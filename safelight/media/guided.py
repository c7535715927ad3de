"""Smoothing that stops at edges: takes sensor noise and compression dirt out of flat areas."""

import numpy as np

from safelight.pixels import Floats, Pixels

RADIUS = 2
"""Half the side of the square that is averaged: 5x5 px hold enough samples, and leave texture."""
REACH = 2 * RADIUS
"""Pixels the filter looks around, for those who work in tiles: a mean of means."""
NOISE_LEVELS = 12.0
"""Variation taken for noise, in 8-bit levels: what a phone shows in dim light."""


def smooth(image: Pixels, strength: float, noise: float = NOISE_LEVELS) -> Pixels:
    """Self-guided filter of each channel, blended over the picture.

    Args:
        image: (H, W, 3) uint8.
        strength: 0 leaves the picture as it is, 1 takes the filtered one.
        noise: variation that is taken for noise, in 8-bit levels.

    Source:
        He, Sun, Tang 2010, Guided Image Filtering, eq. 5 to 8, with the picture as its own guide.
    """
    values = image.astype(np.float32)
    mean = box_mean(values)
    variance = box_mean(values * values) - mean * mean
    np.maximum(variance, 0, out=variance)  # rounding may leave less than nothing
    slope: Floats = (variance / (variance + noise**2)).astype(np.float32)
    offset = mean
    offset -= slope * mean
    filtered = box_mean(slope) * values + box_mean(offset)
    blended = values + np.float32(strength) * (filtered - values)
    return np.clip(np.rint(blended), 0, 255).astype(np.uint8)


def box_mean(values: Floats) -> Floats:
    """Mean of the 5x5 square around each pixel, the edge pixel repeated beyond the edge."""
    for axis in (0, 1):
        widths = [(0, 0)] * values.ndim
        widths[axis] = (RADIUS, RADIUS)
        padded = np.pad(values, widths, mode="edge")
        length = values.shape[axis]
        shifted = [
            padded[at : at + length] if axis == 0 else padded[:, at : at + length]
            for at in range(2 * RADIUS + 1)
        ]
        total = shifted[0] + shifted[1]
        for more in shifted[2:]:
            total += more
        values = total * np.float32(1 / (2 * RADIUS + 1))
    return values
