"""Control pictures that stages make of photographs before they draw."""

from typing import Literal

import numpy as np

from safelight.media.edges import canny, scribble, soft_edges
from safelight.media.fitting import resized
from safelight.pixels import Pixels
from safelight.progress import note

Preprocessor = Literal["canny", "soft_edges", "scribble"]
"""What a photograph is made into; by the names of the ControlNets that were trained with them."""
PREPARES = {"canny": canny, "soft_edges": soft_edges, "scribble": scribble}


def prepared(photograph: Pixels, kind: Preprocessor, width: int, height: int) -> Pixels:
    """The control picture of a photograph, of the size of what is drawn.

    A photograph of another shape fills that size: what reaches beyond it is cut off on both sides
    alike, and a note says so.

    Args:
        photograph: (H, W, 3) uint8 sRGB.
        kind: how.
        width: px.
        height: px.
    """
    return PREPARES[kind](filling(photograph, width, height))


def filling(photograph: Pixels, width: int, height: int) -> Pixels:
    """A photograph scaled until it fills a size, and cut to it around its middle."""
    found_height, found_width = photograph.shape[:2]
    scale = max(width / found_width, height / found_height)
    wide, high = max(width, round(found_width * scale)), max(height, round(found_height * scale))
    left, top = (wide - width) // 2, (high - height) // 2
    if left or top:
        note(
            f"the photograph for the ControlNet is {found_width}x{found_height} px: cut around its "
            f"middle to the shape of {width}x{height}"
        )
    scaled = resized(photograph, wide, high)
    return np.ascontiguousarray(scaled[top : top + height, left : left + width])
