"""Film grain: as fine as the picture is large, strongest in the mid-tones."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

FULL_GRAIN = 0.06
"""Standard deviation at mid grey and strength 1, sRGB 0..1: that of a pushed 16 mm stock. It leaves
four deviations of room at every level, so that nothing is cut off and the mean stays."""
GRAIN_SHARE = 1 / 2000
"""Radius of a grain as part of the longer side: the same film, whatever the size of the scan."""
FINEST = 0.7
"""Least radius in pixels; grain that is not correlated looks like the noise of a sensor."""
COLOUR_SHARE = 0.12
"""Part of the grain's variance that differs between channels: dye clouds overlap almost wholly."""
CUT_OFF = 3
"""The blur that makes grains ends after so many of its radii."""


def add_grain(
    values: Floats, strength: float, seed: int, frame: int, size: tuple[int, int], top: int = 0
) -> Floats:
    """Lay grain over some rows of a picture; a row gets the same grain however they are divided.

    Args:
        values: (h, W, 3), sRGB 0..1.
        strength: 0 changes nothing.
        seed: the same gives the same grain.
        frame: of a video; the grain of each is independent of the others'.
        size: height and width of the whole picture.
        top: which of its rows is the first here.

    Returns:
        (h, W, 3), sRGB 0..1. Grain falls to nothing towards the ends of each channel, where film
        is bare or covered all over.
    """
    room = 4 * values * (1 - values)
    field = grain_field(values.shape[0], seed, frame, size, top)
    grained = values + np.float32(strength * FULL_GRAIN) * room * field
    return np.clip(grained, 0, 1).astype(np.float32)


def grain_field(rows: int, seed: int, frame: int, size: tuple[int, int], top: int = 0) -> Floats:
    """Noise as grain lies in film: round, a few grains to the pixel or a few pixels to the grain.

    Returns:
        (rows, W, 3), mean 0 and standard deviation 1 in each channel.
    """
    height, width = size
    kernel = _kernel(max(max(height, width) * GRAIN_SHARE, FINEST))
    reach = len(kernel) // 2
    drawn = np.stack([_row(top + at, width, seed, frame) for at in range(rows + 2 * reach)])
    down = _weighted([drawn[at : at + rows] for at in range(len(kernel))], kernel)
    wide = np.pad(down, ((0, 0), (reach, reach), (0, 0)), mode="wrap")
    across = _weighted([wide[:, at : at + width] for at in range(len(kernel))], kernel)
    shared, own = across[..., :1], across[..., 1:]
    field = np.sqrt(1 - COLOUR_SHARE) * shared + np.sqrt(COLOUR_SHARE) * own
    return field.astype(np.float32)


def _row(row: int, width: int, seed: int, frame: int) -> Floats:
    """White noise of one row: one layer that all channels share and one of each, mean 0."""
    bits = np.random.Philox(key=[seed, frame], counter=[0, row, 0, 0])
    drawn = np.random.Generator(bits).standard_normal((width, 4), np.float32)
    return drawn - drawn.mean(axis=0)


def _kernel(radius: float) -> Floats:
    """A Gaussian whose squares sum to 1, so that noise keeps its deviation."""
    reach = int(np.ceil(CUT_OFF * radius))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / radius) ** 2)
    return (weights / np.sqrt((weights**2).sum())).astype(np.float32)


def _weighted(parts: list[Floats], kernel: Floats) -> Floats:
    total = kernel[0] * parts[0]
    for part, weight in zip(parts[1:], kernel[1:], strict=True):
        total += weight * part
    return total
