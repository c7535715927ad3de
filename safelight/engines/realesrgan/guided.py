"""`media.guided.smooth` on a device: the same operations in the same order."""

from typing import TYPE_CHECKING

from safelight.media.guided import NOISE_LEVELS, RADIUS

if TYPE_CHECKING:
    from torch import Tensor


def smoothed(values: "Tensor", strength: float, noise: float = NOISE_LEVELS) -> "Tensor":
    """Smooth pictures, see `smooth`.

    Args:
        values: (n, 3, h, w) float32, 8-bit levels.
        strength: 0 leaves a picture as it is, 1 takes the filtered one.
        noise: variation that is taken for noise, in 8-bit levels.

    Returns:
        The same shape, whole levels from 0 to 255.
    """
    mean = _box_mean(values)
    variance = (_box_mean(values * values) - mean * mean).clamp_(min=0)
    slope = variance / (variance + noise**2)
    offset = mean - slope * mean
    filtered = _box_mean(slope) * values + _box_mean(offset)
    return (values + strength * (filtered - values)).round_().clamp_(0, 255)


def _box_mean(values: "Tensor") -> "Tensor":
    from torch.nn import functional

    for axis, filled in ((2, (0, 0, RADIUS, RADIUS)), (3, (RADIUS, RADIUS, 0, 0))):
        padded = functional.pad(values, filled, mode="replicate")
        length = values.shape[axis]
        total = padded.narrow(axis, 0, length) + padded.narrow(axis, 1, length)
        for at in range(2, 2 * RADIUS + 1):
            total += padded.narrow(axis, at, length)
        values = total * (1 / (2 * RADIUS + 1))
    return values
