"""sRGB and linear light, and the three colour grades."""

from typing import Literal

import numpy as np

from safelight.pixels import Floats

Look = Literal["warm", "cool", "cinematic"]
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
"""Share of each linear channel in luminance; ITU-R BT.709, which sRGB shares its primaries with."""


def to_linear(values: Floats) -> Floats:
    """sRGB values 0..1 to linear light 0..1.

    Source:
        IEC 61966-2-1:1999, 5.2.
    """
    low = values / np.float32(12.92)
    high = ((values + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
    return np.where(values <= np.float32(0.04045), low, high).astype(np.float32)


def to_srgb(linear: Floats) -> Floats:
    """Linear light 0..1 to sRGB values 0..1.

    Source:
        IEC 61966-2-1:1999, 5.2.
    """
    low = linear * np.float32(12.92)
    clipped = np.maximum(linear, 0)
    high = np.float32(1.055) * clipped ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.where(linear <= np.float32(0.0031308), low, high).astype(np.float32)


def luminance(linear: Floats) -> Floats:
    """(H, W, 3) linear light to (H, W) relative luminance."""
    return linear @ LUMINANCE


_GAINS: dict[Look, tuple[float, float, float]] = {
    "warm": (1.10, 1.0, 0.82),  # about 6500 K seen under 5200 K
    "cool": (0.88, 1.0, 1.14),  # the other way
}
_SHADOW_TEAL = np.array([-0.045, 0.012, 0.040], np.float32)
_LIGHT_ORANGE = np.array([0.045, 0.010, -0.045], np.float32)
"""Split toning: complementary hues, so that skin stands out from what lies in shadow."""
_CONTRAST, _CINEMATIC_SATURATION = 0.25, 0.92


def grade_colour(values: Floats, look: Look, strength: float) -> Floats:
    """Give a picture a look.

    warm and cool change the white balance in linear light, luminance kept. cinematic adds
    contrast, teal shadows and orange lights, and takes a little saturation away.

    Args:
        values: (H, W, 3), sRGB 0..1.
        look: which.
        strength: 0 changes nothing, 1 is the whole look.

    Returns:
        (H, W, 3), sRGB 0..1.
    """
    graded = _cinematic(values) if look == "cinematic" else _balanced(values, _GAINS[look])
    blended = values + np.float32(strength) * (np.clip(graded, 0, 1) - values)
    return blended.astype(np.float32)


def _balanced(values: Floats, gains: tuple[float, float, float]) -> Floats:
    linear = to_linear(values)
    before = luminance(linear)
    linear = linear * np.array(gains, np.float32)
    after = luminance(linear)
    linear *= (before / np.maximum(after, np.float32(1e-6)))[..., None]
    return to_srgb(np.clip(linear, 0, 1))


def _cinematic(values: Floats) -> Floats:
    # a smoothstep blended in: contrast in the middle, black and white stay where they are
    curved = values * values * (3 - 2 * values)
    contrasted = values + np.float32(_CONTRAST) * (curved - values)
    grey = (contrasted @ LUMINANCE)[..., None]
    muted = grey + np.float32(_CINEMATIC_SATURATION) * (contrasted - grey)
    # neither end is toned: blacks stay black and whites white
    shadows, lights = grey * (1 - grey) ** 2 * 6.75, grey**2 * (1 - grey) * 6.75
    return (muted + shadows * _SHADOW_TEAL + lights * _LIGHT_ORANGE).astype(np.float32)
