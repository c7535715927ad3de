"""Control pictures made of photographs: where edges are, as ControlNets were trained to see them.

White on black, by OpenCV, without any network.
"""

import numpy as np
from numpy.typing import NDArray

from safelight.pixels import Pixels

CANNY_LOW, CANNY_HIGH = 100, 200
"""Thresholds on the gradient, in levels per pixel as Sobel has them: those with which ControlNets
for Canny edges were trained."""
SOFT_SIGMA = 1.2
"""Pixels of smoothing before the gradient of soft edges is taken: pores and grain are no edges."""
STRONG_SHARE = 98.0
"""Percentile of the gradient that becomes white among soft edges."""
FAINT = 0.02
"""Gradient per pixel, of 0 to 1, that is white at the least: a picture without edges stays black.
"""
STROKE = 5
"""Width of a scribble, px of a picture with 512 px on its shorter side; wider on larger ones."""


def canny(image: Pixels) -> Pixels:
    """Edges as lines of one pixel.

    Args:
        image: (H, W, 3) uint8 sRGB.

    Returns:
        (H, W, 3) uint8, each value 0 or 255.

    Source:
        Canny 1986, doi:10.1109/TPAMI.1986.4767851, as OpenCV has it.
    """
    import cv2

    return _three(cv2.Canny(_grey(image), CANNY_LOW, CANNY_HIGH))


def soft_edges(image: Pixels) -> Pixels:
    """How steep each place is, without a threshold: contours are bright, texture is faint.

    Args:
        image: (H, W, 3) uint8 sRGB.

    Returns:
        (H, W, 3) uint8, all channels alike.
    """
    import cv2

    smooth = cv2.GaussianBlur(_grey(image).astype(np.float32) / 255, (0, 0), SOFT_SIGMA)
    across, down = (cv2.Scharr(smooth, cv2.CV_32F, *way, scale=1 / 32) for way in ((1, 0), (0, 1)))
    steep = np.asarray(cv2.magnitude(across, down))
    white = max(float(np.percentile(steep, STRONG_SHARE)), FAINT)
    return _three(np.rint(np.clip(steep / white, 0, 1) * 255).astype(np.uint8))


def scribble(image: Pixels) -> Pixels:
    """The main contours as strokes of a thick pen.

    Args:
        image: (H, W, 3) uint8 sRGB.

    Returns:
        (H, W, 3) uint8, each value 0 or 255.
    """
    import cv2

    width = max(3, round(STROKE * min(image.shape[:2]) / 512) | 1)
    smooth = cv2.bilateralFilter(_grey(image), 2 * width + 1, 60, width)
    lines = cv2.Canny(smooth, CANNY_LOW, CANNY_HIGH)
    pen = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    return _three(cv2.dilate(lines, pen))


def _grey(image: Pixels) -> NDArray[np.uint8]:
    import cv2

    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def _three(lines: object) -> Pixels:
    return np.repeat(np.asarray(lines, np.uint8)[..., None], 3, axis=2)
