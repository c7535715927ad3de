"""Transparency beside colours: stages work on colours, and lay the transparency back on."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from safelight.pixels import Pixels

REDUCTIONS = (64, 16, 4, 2)
"""From how far colours are taken where none is seen, the farthest first; in pixels."""

_GLANCE = 16
"""Every so manieth row and column is looked at before all of them."""


def split(pixels: Pixels) -> tuple[Pixels, Pixels | None]:
    """Colours that can be enlarged without a halo, and what covers them.

    Args:
        pixels: (H, W, 3 or 4) uint8.

    Returns:
        (H, W, 3) uint8, in which what is wholly transparent has the colours around it, and
        (H, W) uint8, or None where all is opaque.
    """
    if pixels.shape[2] == 3:
        return pixels, None
    alpha = np.ascontiguousarray(pixels[..., 3])
    seen = Image.fromarray((alpha > 0) * np.uint8(255))
    known = Image.fromarray(pixels)
    known.putalpha(seen)
    weighted = known.convert("RGBa")
    filled = Image.new("RGB", known.size, "white")
    for factor in REDUCTIONS:
        spread = weighted.reduce(factor).convert("RGBA")
        spread = spread.resize(
            (spread.width * factor, spread.height * factor), Image.Resampling.NEAREST
        ).crop((0, 0, *known.size))
        found = Image.fromarray((np.asarray(spread.getchannel("A")) > 0) * np.uint8(255))
        filled.paste(spread.convert("RGB"), mask=found)
    filled.paste(known.convert("RGB"), mask=seen)
    return np.array(filled), alpha


def joined(colours: Pixels, alpha: Pixels | None) -> Pixels:
    """(H, W, 4) of (H, W, 3) colours and alpha of any size; the colours alone without one."""
    if alpha is None:
        return colours
    height, width = colours.shape[:2]
    if alpha.shape != (height, width):
        scaled = Image.fromarray(alpha).resize((width, height), Image.Resampling.BICUBIC)
        alpha = np.asarray(scaled)
    return np.dstack((colours, alpha))


def covered(pixels: Pixels) -> Pixels:
    """(H, W, 4) of (H, W, 3 or 4): what has no transparency is opaque."""
    if pixels.shape[2] == 4:
        return pixels
    return np.dstack((pixels, np.full(pixels.shape[:2], 255, np.uint8)))


def covering(
    change: Callable[[Iterator[Pixels]], Iterable[Pixels]], frames: Iterator[Pixels]
) -> Iterator[Pixels]:
    """Change the colours of transparent frames, and lay their transparency over what comes of them.

    Args:
        change: from (H, W, 3) uint8 of each to the same of any size, one for one and in order.
        frames: (H, W, 4) uint8.
    """
    waiting: deque[Pixels] = deque()

    def colours() -> Iterator[Pixels]:
        for frame in frames:
            waiting.append(frame[..., 3])
            yield np.ascontiguousarray(frame[..., :3])

    for made in change(colours()):
        yield joined(made, waiting.popleft())


def only_grey(pixels: Pixels) -> Pixels:
    """(H, W, 1 or 2) of (H, W, 3 or 4) uint8 without colour: one channel stands for all three."""
    return np.ascontiguousarray(pixels[..., ::3] if pixels.shape[2] == 4 else pixels[..., :1])


def is_grey(colours: Pixels) -> bool:
    """Whether no pixel of (H, W, 3) uint8 has a colour."""
    few = colours[::_GLANCE, ::_GLANCE]
    if (few[..., :1] != few[..., 1:]).any():  # most pictures end here
        return False
    first = colours[..., 0]
    return bool(np.array_equal(first, colours[..., 1]) and np.array_equal(first, colours[..., 2]))


def without_colour(colours: Pixels) -> Pixels:
    """The luma of (H, W, 3) uint8 in all three channels."""
    return np.asarray(Image.fromarray(colours).convert("L").convert("RGB"))


def as_grey(made: Pixels, source: Pixels) -> Pixels:
    """(H, W, 3) uint8 without colour where its source has none."""
    return without_colour(made) if is_grey(source) else made


def on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) of (H, W, 3 or 4) uint8: what is transparent shows white."""
    if pixels.shape[2] == 3:
        return pixels
    shown = Image.fromarray(pixels)
    white = Image.new("RGB", shown.size, "white")
    white.paste(shown, mask=shown.getchannel("A"))
    return np.array(white)
