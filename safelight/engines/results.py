"""What engines give, and the pictures that steer them: parts of `safelight.engines.interface`."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from safelight.pixels import Pixels


@dataclass(frozen=True)
class Pictures:
    """Pictures that an engine made."""

    pixels: tuple[Pixels, ...]
    """(H, W, 3) uint8 sRGB each."""
    cost_usd: float = 0.0
    """What was charged for all of them together."""
    places: tuple[int, ...] | None = None
    """Of each among those asked for, where some could not be made; None: all are there."""
    sampler: str = ""
    """Which sampler drew them, also where the model's own did; empty where nobody can say."""


@dataclass(frozen=True)
class Guides:
    """Pictures that steer a drawing."""

    controls: tuple[Pixels, ...] = ()
    """(H, W, 3) uint8, of the size of the result; one for each ControlNet."""
    references: tuple[Pixels, ...] = ()
    """(H, W, 3) uint8 each."""


NO_GUIDES = Guides()


@dataclass(frozen=True)
class Face:
    """One face, in pixels of the picture; the box may reach beyond it."""

    left: float
    """First column."""
    top: float
    """First row."""
    right: float
    """Where it ends."""
    bottom: float
    """Where it ends."""
    confidence: float
    """0 to 1."""
    landmarks: tuple[tuple[float, float], ...] = ()
    """Column and row of both eyes, the tip of the nose and both corners of the mouth; of each pair
    the left one in the picture comes first."""


@dataclass(frozen=True)
class Clip:
    """Frames that an engine makes as they are asked for."""

    frames: Iterator[Pixels]
    """(H, W, 3) uint8 sRGB each, all of one size; gone through once."""
    fps: Fraction
    """Their rate."""
    cost_usd: float = 0.0
    """What was charged for all of them."""
