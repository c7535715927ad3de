"""Looks at how many samples an MP4 claims to hold before FFmpeg makes room for all of them.

FFmpeg builds its index from numbers in the header: a file of 700 bytes can ask for gigabytes.
"""

import os
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import IO

from safelight.errors import InvalidMediaError

MOST_SAMPLES = 16_000_000
"""Of a track; three days at 60 frames a second, and 600 MB of index."""
SHARED_BYTE = 64
"""Samples of old QuickTime sound that may share a byte: they are counted before compression."""
FEW_SAMPLES = 4096
"""Always taken, since frames of a header alone may be empty."""
MOST_BOXES = 1_000_000
"""A file with one fragment a frame has five a frame."""
LARGEST_HEADER = 64 * 2**20
"""Bytes of a compressed header, unpacked."""
_INSIDE = frozenset(
    b"moov trak mdia minf stbl edts mvex moof traf tref udta dinf sinf schi clip wave cmov "
    b"iprp ipco".split()
)
"""Boxes that hold boxes."""
_DEEPEST = 12


def require_few_samples(path: Path) -> None:
    """Refuse a file whose header lists more samples than its bytes can hold.

    Files that are no MP4 pass: others look at them.

    Raises:
        InvalidMediaError: more samples than bytes, more than `MOST_SAMPLES`, or too many boxes.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        found = _Walk(size).over(file)
    if found:
        raise InvalidMediaError(
            f"{path.name} ({size} bytes) {found}", "export the video again as MP4"
        )


class _Walk:
    """One walk through the boxes of a file."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._most = min(size + FEW_SAMPLES, MOST_SAMPLES)
        self._shared = min(SHARED_BYTE * size + FEW_SAMPLES, MOST_SAMPLES * SHARED_BYTE)
        self._boxes = 0
        self._sound = self._even = False
        """Whether the track is sound, and whether its samples last one tick each."""
        self._listed = 0
        """Samples of the track."""

    def over(self, file: IO[bytes]) -> str:
        """What is wrong, as the rest of a sentence; empty when nothing is."""
        return self._within(file, 0, self._size, 0) or self._too_many()

    def _within(self, file: IO[bytes], start: int, end: int, depth: int) -> str:
        at = start
        while at + 8 <= end:
            self._boxes += 1
            if self._boxes > MOST_BOXES:
                return f"has more than {MOST_BOXES} boxes"
            file.seek(at)
            head = file.read(16)
            if len(head) < 8:
                return ""
            length, kind, body = int.from_bytes(head[:4]), head[4:8], at + 8
            if length == 1 and len(head) == 16:
                length, body = int.from_bytes(head[8:]), at + 16
            elif length == 0:
                length = end - at
            stop = min(at + length, end)
            if length < body - at or body > end:
                return ""  # no box: what FFmpeg says of it is what counts
            if kind in _INSIDE and depth < _DEEPEST:
                found = self._within(file, body, stop, depth + 1)
                if kind == b"trak" and not found:
                    found = self._too_many()
            else:
                file.seek(body)
                found = self._looked_at(kind, file, stop - body, depth)
            if found:
                return found
            at += length
        return ""

    def _looked_at(self, kind: bytes, file: IO[bytes], length: int, depth: int) -> str:
        if kind == b"cmvd":
            return self._unpacked(file.read(min(length, LARGEST_HEADER)), depth)
        if kind not in (b"hdlr", b"stts", b"stsz", b"stz2", b"stsc", b"trun"):
            return ""
        data = file.read(min(length, 16))
        data += bytes(16 - len(data))
        _, first, second, third = struct.unpack(">4I", data)
        if kind == b"hdlr":
            self._sound = data[8:12] == b"soun"
        elif kind == b"stts":
            self._even = first == 1 and third == 1
        elif kind == b"stsc":
            file.seek(-min(length, 16), os.SEEK_CUR)
            return self._chunks(file.read(min(length, LARGEST_HEADER)))
        else:
            self._listed = max(self._listed, first if kind == b"trun" else second)
        return ""

    def _too_many(self) -> str:
        # FFmpeg reads such sound by chunks, not by samples
        most = self._shared if self._sound and self._even else self._most
        listed, self._listed = self._listed, 0
        self._sound = self._even = False
        if listed <= most:
            return ""
        return f"lists {listed} samples in a track, at most {most} fit into it"

    def _chunks(self, data: bytes) -> str:
        entries = data[8 : 8 + (len(data) - 8) // 12 * 12] if len(data) >= 20 else b""
        for _, samples, _ in struct.iter_unpack(">3I", entries):
            if samples > self._shared:
                return f"lists {samples} samples in a chunk, at most {self._shared} fit into it"
        return ""

    def _unpacked(self, data: bytes, depth: int) -> str:
        unpacking = zlib.decompressobj()
        try:
            header = unpacking.decompress(data[4:], LARGEST_HEADER)
        except zlib.error:
            return ""
        if unpacking.unconsumed_tail:
            return f"has a compressed header of more than {LARGEST_HEADER} bytes"
        return self._within(BytesIO(header), 0, len(header), depth + 1)
