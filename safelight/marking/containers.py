"""Puts a manifest of the same length in place of the one that a file holds."""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from safelight.marking.boxes import ManifestShapeError

_APP11, _START_OF_SCAN = 0xEB, 0xDA
_SEGMENT, _AGAIN = 8, 8
"""Bytes before the piece of a box in each segment, and of the box's header in all but the first."""
_C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""Whose boxes hold the manifest of an MP4."""


def put_into(data: bytes, old: bytes, new: bytes) -> bytes:
    """A PNG, JPEG or WebP with another manifest.

    Raises:
        ManifestShapeError: the old one is not in it.
    """
    written = bytearray(data)
    at = written.find(old)
    if at >= 0:
        written[at : at + len(new)] = new
        if data.startswith(b"\x89PNG"):
            check = zlib.crc32(written[at - 4 : at + len(new)])
            written[at + len(new) : at + len(new) + 4] = struct.pack(">I", check)
        return bytes(written)
    if data.startswith(b"\xff\xd8"):
        _into_segments(written, old, new)
        return bytes(written)
    raise ManifestShapeError("the file does not hold the manifest that was made for it")


def put_into_mp4(path: Path, old: bytes, new: bytes) -> None:
    """Write another manifest over the one in a file.

    Raises:
        ManifestShapeError: the old one is not in it.
    """
    with path.open("r+b") as file:
        start, size = _c2pa_box(file)
        file.seek(start)
        at = file.read(size).find(old)
        if at < 0:
            raise ManifestShapeError("the file does not hold the manifest that was made for it")
        file.seek(start + at)
        file.write(new)


def _c2pa_box(file: BinaryIO) -> tuple[int, int]:
    start = 0
    while len(header := file.read(32)) >= 8:
        size, kind = struct.unpack_from(">I4s", header)
        if size == 1:
            (size,) = struct.unpack_from(">Q", header, 8)
        if kind == b"uuid" and _C2PA in header:
            return start, size
        if size < 8:
            break
        start += size
        file.seek(start)
    raise ManifestShapeError("the file holds no box of C2PA")


def _into_segments(data: bytearray, old: bytes, new: bytes) -> None:
    """A manifest above 64 KB lies in pieces, each behind a copy of the first bytes of its box."""
    at, done = 2, 0
    while at + 4 <= len(data) and data[at + 1] != _START_OF_SCAN:
        marker, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _APP11 and data.startswith(b"JP", at + 4):
            begins = at + 4 + _SEGMENT + (_AGAIN if done else 0)
            piece = slice(begins, at + 2 + size)
            length = piece.stop - piece.start
            if bytes(data[piece]) != old[done : done + length]:
                break
            data[piece] = new[done : done + length]
            done += length
        at += 2 + size
    if done != len(old):
        raise ManifestShapeError("the file does not hold the manifest that was made for it")
