"""Faces cut out upright and of one size, as networks for faces want them, and laid back in."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safelight.media.images import rounded
from safelight.pixels import Floats, Pixels

SIDE = 512
"""Of a face that was cut out, px."""
POINTS = (
    (192.98138, 239.94708),
    (318.90277, 240.1936),
    (256.63416, 314.01935),
    (201.26117, 371.41043),
    (313.08905, 371.15118),
)
"""Where both eyes, the tip of the nose and both corners of the mouth lie then: the means of the
data set FFHQ, which restorers were trained on, as in facexlib."""
FEATHER = 0.12
"""Width of the blended border, as part of the side."""
Turning = NDArray[np.float64]
"""(2, 3), from columns and rows of a picture to those of the face cut out of it."""


def turning_of(points: Sequence[tuple[float, float]]) -> Turning:
    """The shift, turn and scale that bring five points closest to where they belong.

    Args:
        points: column and row of both eyes, nose and both corners of the mouth; of each pair the
            left one in the picture first.

    Source:
        Least squares over similarities, as Umeyama 1991, without mirroring.
    """
    rows: list[tuple[float, ...]] = []
    for column, row in points:
        rows += [(column, -row, 1, 0), (row, column, 0, 1)]
    wanted = np.asarray(POINTS, np.float64).ravel()
    a, b, right, down = np.linalg.lstsq(np.asarray(rows, np.float64), wanted, rcond=None)[0]
    return np.array([[a, -b, right], [b, a, down]])


def scale_of(turning: Turning) -> float:
    """Px of the face cut out per px of the picture."""
    return float(np.hypot(turning[0, 0], turning[1, 0]))


def cut_out(picture: Pixels, turning: Turning) -> Pixels:
    """The face as (512, 512, 3) uint8; the edge of the picture goes on beyond it.

    Args:
        picture: (H, W, 3) uint8 sRGB.
        turning: see `turning_of`.
    """
    import cv2

    scale = scale_of(turning)
    seen: Any = picture
    if scale < 1:  # else every other pixel would be left out
        seen = cv2.GaussianBlur(picture, (0, 0), 0.5 / scale)
    made: Any = cv2.warpAffine(
        seen, turning, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(made)


def lay_back(picture: Pixels, face: Pixels, turning: Turning, weight: float) -> Pixels:
    """A new picture with a face in it, blended over its border; outside it nothing changes.

    Args:
        picture: (H, W, 3) uint8 sRGB; kept as it is.
        face: (512, 512, 3) uint8.
        turning: with which it was cut out.
        weight: 0 to 1, how much of the face is seen.
    """
    import cv2

    size = (picture.shape[1], picture.shape[0])
    back = cv2.invertAffineTransform(turning)
    placed = cv2.warpAffine(
        face, back, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    mask: Any = cv2.warpAffine(_mask(), back, size, flags=cv2.INTER_LINEAR)
    seen: Floats = mask * np.float32(weight)
    where = seen > 0
    original, shown = picture[where].astype(np.float32), np.asarray(placed)[where]
    made = picture.copy()
    mixed = original + seen[where][:, None] * (shown - original)
    made[where] = rounded(mixed.astype(np.float32))
    return made


def _mask() -> Floats:
    """How much of each pixel of the face is seen, (512, 512): 0 at the border, 1 within."""
    at = (np.arange(SIDE, dtype=np.float32) + 0.5) / (FEATHER * SIDE)
    ramp = np.clip(np.minimum(at, at[::-1]), 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return np.outer(ramp, ramp).astype(np.float32)
