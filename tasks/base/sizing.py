"""Which size a model draws at, and what brings it up to a size for people."""

from dataclasses import dataclass
from math import sqrt

from safelight.weights.checkpoints import find_checkpoint

SMALL_NATIVE = 256
"""Models trained below this many pixels a side draw only at exactly that size."""
GRAIN = 64
"""Sides are multiples of this: the coarsest level of common U-Nets."""
LARGE_ENOUGH = 512
"""Pixels the short side has in the end."""


@dataclass(frozen=True)
class Sizing:
    """Pixels to draw, and factors to enlarge by afterwards."""

    width: int
    """Pixels the model draws."""
    height: int
    """Pixels the model draws."""
    enlargements: tuple[int, ...] = ()
    """Upscale factors, one after the other; the largest comes last, as work goes by input pixel."""
    guidance_scale: float | None = None
    """What a small model's maker recommends; numbers tuned on large ones burn its colours out."""


def size_for(model: str | None, aspect: tuple[int, int]) -> Sizing:
    """The size at which a model draws best.

    Args:
        model: its name; None is the default model.
        aspect: width to height; small models keep their own.

    Returns:
        For ordinary models the area they were trained at in the wanted aspect; for models far
        below print size exactly their own, with enlargements up to `LARGE_ENOUGH`.
    """
    card = find_checkpoint(model)
    if min(card.native_width, card.native_height) >= SMALL_NATIVE:
        side = sqrt(card.native_width * card.native_height)
        stretch = sqrt(aspect[0] / aspect[1])
        return Sizing(_on_grid(side * stretch), _on_grid(side / stretch))
    short = min(card.native_width, card.native_height)
    factors: list[int] = []
    while short < LARGE_ENOUGH:
        factor = 4 if short * 4 <= LARGE_ENOUGH else 2
        factors.append(factor)
        short *= factor
    recommended = card.recommended_guidance_scale
    return Sizing(card.native_width, card.native_height, tuple(sorted(factors)), recommended)


def _on_grid(side: float) -> int:
    return max(GRAIN, round(side / GRAIN) * GRAIN)
