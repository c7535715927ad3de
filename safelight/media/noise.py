"""Film grain."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
FULL_GRAIN = 0.06
"""Standard deviation at mid grey and strength 1, sRGB 0..1: that of a pushed 16 mm stock."""
REFERENCE_HEIGHT = 1080
"""Rows at which a grain is one pixel wide; larger pictures get larger grains."""
COLOUR_SHARE = 0.08
"""Part of the grain that differs between channels: dye clouds overlap almost wholly."""


def grain_field(height: int, width: int, seed: int) -> Floats:
    """Noise as grain lies in film: correlated over about a pixel at 1080 rows.

    Args:
        height: rows.
        width: columns.
        seed: the same gives the same grain.

    Returns:
        (height, width, 3), mean 0 and standard deviation 1 in each channel.
    """
    generator = np.random.default_rng(seed)
    size = max(1.0, height / REFERENCE_HEIGHT)
    rows, columns = int(np.ceil(height / size)) + 2, int(np.ceil(width / size)) + 2
    shared = generator.standard_normal((rows, columns, 1), np.float32)
    own = generator.standard_normal((rows, columns, 3), np.float32)
    noise = np.sqrt(1 - COLOUR_SHARE) * shared + np.sqrt(COLOUR_SHARE) * own
    for axis in (0, 1):  # binomial 1 2 1: grains are round, pixels are not
        noise = (np.roll(noise, 1, axis) + 2 * noise + np.roll(noise, -1, axis)) / 4
    if size > 1:
        noise = _stretched(noise, height, width, size)
    noise = noise[:height, :width].astype(np.float32)
    noise -= noise.mean(axis=(0, 1))
    return noise / np.maximum(noise.std(axis=(0, 1)), np.float32(1e-6))


def add_grain(values: Floats, strength: float, field: Floats) -> Floats:
    """Lay grain over a picture: strongest in the middle tones, none in black and white.

    Args:
        values: (H, W, 3), sRGB 0..1.
        strength: 0 changes nothing.
        field: same shape, see `grain_field`.
    """
    grey = values.mean(axis=2, keepdims=True)
    weight = 4 * grey * (1 - grey)
    grained = values + np.float32(strength * FULL_GRAIN) * weight * field
    return np.clip(grained, 0, 1).astype(np.float32)


def _stretched(noise: Floats, height: int, width: int, size: float) -> Floats:
    """Bilinear enlargement by `size`, rows then columns."""
    for axis, length in ((0, height), (1, width)):
        places = np.arange(length, dtype=np.float32) / np.float32(size)
        first = places.astype(np.int64)
        part = (places - first).astype(np.float32)
        shape = [1, 1, 1]
        shape[axis] = length
        part = part.reshape(shape)
        left, right = np.take(noise, first, axis), np.take(noise, first + 1, axis)
        noise = (left * (1 - part) + right * part).astype(np.float32)
    return noise
