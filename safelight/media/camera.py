"""A camera moved over one still picture: pan, zoom and parallax as affine maps."""

from typing import Literal

import numpy as np
from PIL import Image

from safelight.pixels import Pixels

Camera = Literal["zoom_in", "zoom_out", "pan_left", "pan_right", "parallax"]
FULL_ZOOM = 0.3
"""By how much more a zoom enlarges from its beginning to its end at full motion."""
FULL_PAN = 0.25
"""Part of the picture's width that a pan passes over at full motion."""
FULL_SHEAR = 0.12
"""How far the lowest row moves against the highest, parts of the height, at full motion."""


def seen(image: Pixels, camera: Camera, motion: float, moment: float) -> Pixels:
    """What the camera sees of a picture at one moment.

    Every map is x' = s (x + k y) + d, y' = s y around the middle of the picture, with a scale s of
    at most 1, so that nothing beyond its edge is ever seen. zoom changes s, pan changes d. Parallax
    changes k: no depth is known, what is lower in the picture is taken to be nearer.

    Args:
        image: (H, W, 3) uint8 sRGB.
        camera: how it moves.
        motion: 0 to 1, how far.
        moment: 0 at the beginning, 1 at the end.

    Returns:
        The same size.
    """
    height, width = image.shape[:2]
    shear = shift = 0.0
    if camera in ("zoom_in", "zoom_out"):
        near = moment if camera == "zoom_in" else 1 - moment
        scale = 1 / (1 + FULL_ZOOM * motion * near)
    elif camera == "parallax":
        most = FULL_SHEAR * motion
        scale = 1 / (1 + most * height / width)
        shear = most * (2 * moment - 1)
    else:
        scale = 1 - FULL_PAN * motion
        way = 2 * moment - 1 if camera == "pan_right" else 1 - 2 * moment
        shift = way * (1 - scale) * width / 2
    # Pillow maps the middles of pixels of the result to places in the picture
    across = (scale, scale * shear, width / 2 + shift - scale * (width + shear * height) / 2)
    down = (0.0, scale, height / 2 * (1 - scale))
    moved = Image.fromarray(image).transform(
        (width, height), Image.Transform.AFFINE, (*across, *down), Image.Resampling.BICUBIC
    )
    return np.asarray(moved)
