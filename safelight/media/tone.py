"""Tone mapping."""

import numpy as np

from safelight.media.colour import luminance, to_linear, to_srgb
from safelight.pixels import Floats

KEY = 0.18
"""Middle grey of the result: the reflectance that photographers expose for."""
_FLOOR = 1e-4


def log_average(linear: Floats) -> float:
    """Log-average luminance of a (H, W, 3) picture in linear light; eq. 1 of Reinhard 2002."""
    return float(np.exp(np.mean(np.log(luminance(linear) + np.float32(_FLOOR)))))


def map_tones(values: Floats, strength: float, average: float) -> Floats:
    """Open the shadows and let highlights roll off, hue kept.

    Args:
        values: (H, W, 3), sRGB 0..1.
        strength: 0 changes nothing, 1 is the whole operator.
        average: log-average luminance of the whole picture, see `log_average`.

    Returns:
        (H, W, 3), sRGB 0..1.

    Source:
        Reinhard, Stark, Shirley, Ferwerda 2002, Photographic Tone Reproduction for Digital
        Images, eq. 2 and 4, on luminance. The white point is the luminance of display white, so
        that white stays white.
    """
    linear = to_linear(values)
    world = luminance(linear)
    scale = np.float32(KEY / max(average, _FLOOR))
    scaled = world * scale
    white = scale  # world luminance 1
    mapped = scaled * (1 + scaled / (white * white)) / (1 + scaled)
    ratio: Floats = (mapped / np.maximum(world, np.float32(1e-6))).astype(np.float32)
    result = to_srgb(np.clip(linear * ratio[..., None], 0, 1))
    return (values + np.float32(strength) * (result - values)).astype(np.float32)
