"""Means over squares."""

import numpy as np

from safelight.pixels import Floats


def box_mean(values: Floats, reach: int) -> Floats:
    """Mean of the square of this reach around each pixel, the edge pixel repeated beyond the edge.

    Args:
        values: (H, W) or (H, W, channels).
        reach: px on each side.
    """
    side = 2 * reach + 1
    for axis in (0, 1):
        widths = [(reach, reach) if at == axis else (0, 0) for at in range(values.ndim)]
        wide = np.pad(values, widths, "edge")
        length = values.shape[axis]
        total = np.zeros_like(values)
        for at in range(side):
            total += wide[at : at + length] if axis == 0 else wide[:, at : at + length]
        values = total / np.float32(side)
    return values
