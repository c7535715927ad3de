"""Arrays of pixels, as all layers pass them on; shapes are said where they matter."""

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""Levels of 0 to 255: (H, W, 3) sRGB unless something else is said."""
Floats = NDArray[np.float32]
"""The same while something is computed."""
