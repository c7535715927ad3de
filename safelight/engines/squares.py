"""Small networks of this repository that look at squares of a picture; OpenCV runs them."""

import lzma
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np

from safelight.pixels import Pixels
from safelight.weights.packaged import packaged_bytes


class SquareNet:
    """A packed file of TensorFlow Lite; one square at a time.

    Raises:
        ChecksumMismatchError: the file is another one.
    """

    def __init__(self, file: Path) -> None:
        import cv2

        content = lzma.decompress(packaged_bytes(file))
        self.net: Any = cv2.dnn.readNetFromTFLite(np.frombuffer(content, np.uint8))
        """What OpenCV made of it; whoever asks it holds `turn`."""
        self.turn = Lock()

    def give(self, square: Pixels) -> None:
        """The next square to look at, (N, N, 3) uint8 sRGB, as 0 to 1."""
        given: Any = np.ascontiguousarray(square.transpose(2, 0, 1)[None], np.float32) / 255
        self.net.setInput(given)


def square_of(
    image: Pixels, top: int, left: int, side: int, shown: int, beyond: Literal["constant", "edge"]
) -> Pixels:
    """A square of a picture, scaled to (shown, shown, 3).

    Args:
        image: (H, W, 3) uint8 sRGB.
        top: its first row, which may lie outside.
        left: its first column, the same.
        side: in pixels of the picture.
        shown: what it is scaled to, px.
        beyond: what lies beyond the edges: black, or the pixels at the edge again.
    """
    import cv2

    height, width = image.shape[:2]
    inside = image[max(top, 0) : top + side, max(left, 0) : left + side]
    missing = (
        (max(-top, 0), max(top + side - height, 0)),
        (max(-left, 0), max(left + side - width, 0)),
        (0, 0),
    )
    square = np.pad(inside, missing, beyond) if any(map(any, missing)) else inside
    way = cv2.INTER_AREA if side > shown else cv2.INTER_LINEAR
    made: Any = cv2.resize(np.ascontiguousarray(square), (shown, shown), interpolation=way)
    return made
