"""Film grain: as fine as the film is large, in luminance first, strongest in the mid-tones."""

from typing import Literal

import numpy as np

from safelight.pixels import Floats

FULL_GRAIN = 0.06
"""Standard deviation at mid grey and strength 1, sRGB 0..1: that of a pushed 16 mm stock. It leaves
four deviations of room at every level, so that nothing is cut off and the mean stays."""
GRAIN_MILLIMETRES = 0.0156
"""Radius of a clump of grains on the film, one pushed far."""
Film = Literal["35mm", "16mm", "8mm"]
FRAME_MILLIMETRES: dict[Film, float] = {"35mm": 36.0, "16mm": 12.5, "8mm": 5.8}
"""Longer side of what a camera exposes: of stills, of Super 16 and of Super 8."""
PIXEL_VARIANCE = 1 / 12
"""Of where light falls within a pixel, in pixels squared: a pixel averages the grains in it."""
COLOUR_SHARE = 0.02
"""Part of the grain's variance that differs between channels: dye clouds overlap almost wholly,
and what they do not share reads as the noise of a sensor."""
LUMA: Floats = np.array([0.299, 0.587, 0.114], np.float32)
CUT_OFF = 3
"""The blur that makes grains ends after so many of its radii."""


def add_grain(
    values: Floats,
    strength: float,
    seed: int,
    frame: int,
    size: tuple[int, int],
    top: int = 0,
    film: Film = "16mm",
) -> Floats:
    """Lay grain over some rows of a picture; a row gets the same grain however they are divided.

    Args:
        values: (h, W, 3), sRGB 0..1.
        strength: 0 changes nothing.
        seed: the same gives the same grain.
        frame: of a video; the grain of each is independent of the others'.
        size: height and width of the whole picture.
        top: which of its rows is the first here.
        film: what the picture is taken to have been exposed on.

    Returns:
        (h, W, 3), sRGB 0..1. Grain goes by luminance, alike in all channels, and falls to nothing
        where one of them nears its ends and film is bare or covered all over.
    """
    luma = (values @ LUMA)[..., None]
    ends = np.minimum(values, 1 - values).min(axis=-1, keepdims=True)
    room = np.minimum(4 * luma * (1 - luma), ends / np.float32(4 * FULL_GRAIN))
    field = grain_field(values.shape[0], seed, frame, size, top, film)
    grained = values + np.float32(strength * FULL_GRAIN) * room * field
    return np.clip(grained, 0, 1).astype(np.float32)


def grain_field(
    rows: int, seed: int, frame: int, size: tuple[int, int], top: int = 0, film: Film = "16mm"
) -> Floats:
    """Noise as grain lies in film: round, a few grains to the pixel or a few pixels to the grain.

    Returns:
        (rows, W, 3), mean 0 and standard deviation 1 in each channel where a pixel is smaller than
        a grain. Where it is larger it averages them, as a scan does: less deviation, so that a
        picture made smaller has the grain of one that was graded small.
    """
    height, width = size
    grain = max(height, width) * GRAIN_MILLIMETRES / FRAME_MILLIMETRES[film]
    seen = float(np.sqrt(grain**2 + PIXEL_VARIANCE))
    kernel = _kernel(seen)
    reach = len(kernel) // 2
    drawn = np.stack([white_row(top + at, width, seed, frame) for at in range(rows + 2 * reach)])
    down = _weighted([drawn[at : at + rows] for at in range(len(kernel))], kernel)
    wide = np.pad(down, ((0, 0), (reach, reach), (0, 0)), mode="wrap")
    across = _weighted([wide[:, at : at + width] for at in range(len(kernel))], kernel)
    return in_channels(across) * np.float32(grain / seen)


def in_channels(drawn: Floats) -> Floats:
    """Grain of three channels from four layers: one that all share, and a little of their own."""
    shared, own = drawn[..., :1], drawn[..., 1:]
    field = np.sqrt(1 - COLOUR_SHARE) * shared + np.sqrt(COLOUR_SHARE) * own
    return field.astype(np.float32)


def white_row(row: int, width: int, seed: int, frame: int) -> Floats:
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
