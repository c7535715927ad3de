"""Which size a model draws at, and what brings it up to a size for people."""

from dataclasses import dataclass
from math import sqrt

from safelight.weights.checkpoints import WeightsCard, find_checkpoint

SMALL_NATIVE = 256
"""Models trained below this many pixels a side draw well only at exactly that size."""
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
    canvas_width: int
    """Pixels of the picture that the drawing is laid in the middle of."""
    canvas_height: int
    """The same."""
    enlargements: tuple[int, ...] = ()
    """Upscale factors, one after the other; the largest comes last, as work goes by input pixel."""
    guidance_scale: float | None = None
    """What a small model's maker recommends; numbers tuned on large ones burn its colours out."""


def is_small(card: WeightsCard) -> bool:
    """Whether a model was trained far below print size."""
    return min(card.native_width, card.native_height) < SMALL_NATIVE


def size_for(model: str | None, aspect: tuple[int, int]) -> Sizing:
    """The size at which a model draws best.

    Args:
        model: its name; None is the default model.
        aspect: width to height.

    Returns:
        For ordinary models the area they were trained at in the wanted aspect; for models far
        below print size exactly their own, on a canvas of the wanted aspect, with enlargements up
        to `LARGE_ENOUGH`. Such models draw heads on heads in a shape they were not trained in.
    """
    card = find_checkpoint(model)
    if not is_small(card):
        side = sqrt(card.native_width * card.native_height)
        stretch = sqrt(aspect[0] / aspect[1])
        width, height = _on_grid(side * stretch), _on_grid(side / stretch)
        return Sizing(width, height, width, height)
    short = min(card.native_width, card.native_height)
    factors: list[int] = []
    while short < LARGE_ENOUGH:
        factor = 4 if short * 4 <= LARGE_ENOUGH else 2
        factors.append(factor)
        short *= factor
    recommended = card.recommended_guidance_scale
    width, height = card.native_width, card.native_height
    wide = max(width, round(height * aspect[0] / aspect[1]))
    tall = max(height, round(width * aspect[1] / aspect[0]))
    return Sizing(width, height, wide, tall, tuple(sorted(factors)), recommended)


def _on_grid(side: float) -> int:
    return max(GRAIN, round(side / GRAIN) * GRAIN)
