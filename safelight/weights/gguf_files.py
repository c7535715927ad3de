"""Headers of GGUF files, read within bounds (docs/gguf.md of ggml-org/ggml)."""

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, NoReturn

from safelight.errors import InvalidMediaError
from safelight.weights.json_files import LARGEST_HEADER

SUFFIX = ".gguf"
"""How the names of these files end."""
MAGIC = b"GGUF"
VERSIONS = (2, 3)
BLOCKS = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    20: ("IQ4_NL", 32, 18),
    23: ("IQ4_XS", 256, 136),
    30: ("BF16", 1, 2),
}
"""Name, values of a block and its bytes, by number: the kinds that diffusers reads."""
MOST_TENSORS, MOST_FIELDS, MOST_DIMENSIONS, DEEPEST = 2**16, 2**14, 4, 4
LONGEST_NAME = 512
"""Bytes of a name."""
_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value of the metadata, by the number of its type."""
_UINT32, _STRING, _ARRAY = 4, 8, 9
_ALIGNMENT = b"general.alignment"


@dataclass(frozen=True)
class GgufTensor:
    """One tensor, as the header describes it."""

    shape: tuple[int, ...]
    """The slowest dimension first, as torch has it."""
    kind: str
    """A name of `BLOCKS`."""
    first: int
    """Where it begins, bytes from the beginning of the file."""
    size: int
    """Bytes."""


def gguf_header(path: Path) -> dict[str, GgufTensor]:
    """The tensors of a GGUF file by name; nothing of them is read.

    Raises:
        InvalidMediaError: it is none, is damaged or breaks off, or holds a kind of tensor that
            cannot be read here.
    """
    with path.open("rb") as file:
        return _Reading(path, file).tensors()


class _Reading:
    """One look at a header."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._name, self._size = path.name, path.stat().st_size
        self._file = file
        self._left = LARGEST_HEADER
        self._alignment = 32

    def tensors(self) -> dict[str, GgufTensor]:
        if self._take(4) != MAGIC:
            self._refuse("has no GGUF header")
        version = self._whole("<I")
        if version not in VERSIONS:
            self._refuse(f"is GGUF of version {version}, expected 2 or 3, little-endian")
        count, fields = self._whole("<Q"), self._whole("<Q")
        if count > MOST_TENSORS or fields > MOST_FIELDS:
            self._refuse(f"lists {count} tensors and {fields} fields, expected a few thousand")
        for _ in range(fields):
            key = self._text(LONGEST_NAME)
            kind = self._whole("<I")
            if key == _ALIGNMENT and kind == _UINT32:
                self._alignment = self._whole("<I")
            else:
                self._skip(kind, 0)
        align = self._alignment
        if not 1 <= align <= 2**16 or align & (align - 1):
            self._refuse(f"aligns tensors to {align} bytes, expected a power of two")
        told = [self._tensor() for _ in range(count)]
        start = -(-self._file.tell() // align) * align
        found: dict[str, GgufTensor] = {}
        for name, shape, kind, offset in told:
            values, block, size = prod(shape), BLOCKS[kind][1], BLOCKS[kind][2]
            if name in found or offset % align or (shape[-1] if shape else 1) % block:
                self._refuse(f"describes tensor {name[:80]} twice, or in parts of blocks")
            found[name] = GgufTensor(shape, BLOCKS[kind][0], start + offset, values // block * size)
        self._require_places(found)
        return found

    def _require_places(self, found: dict[str, GgufTensor]) -> None:
        """All inside the file, and none over another."""
        at, before = 0, "the header"
        for name, tensor in sorted(found.items(), key=lambda each: each[1].first):
            if tensor.first < at:
                self._refuse(f"has tensor {name[:80]} over {before[:80]}")
            at, before = tensor.first + tensor.size, name
        if at > self._size:
            self._refuse(f"has {self._size} bytes, its tensors end at {at}: it breaks off")

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        try:
            name = self._text(LONGEST_NAME).decode()
        except UnicodeDecodeError:
            self._refuse("names a tensor in no UTF-8")
        dimensions = self._whole("<I")
        if dimensions > MOST_DIMENSIONS:
            self._refuse(f"has tensor {name[:80]} of {dimensions} dimensions, expected at most 4")
        shape = tuple(self._whole("<Q") for _ in range(dimensions))[::-1]
        kind, offset = self._whole("<I"), self._whole("<Q")
        if kind not in BLOCKS:
            known = ", ".join(name for name, _, _ in BLOCKS.values())
            self._refuse(f"has tensor {name[:80]} of kind {kind}, which is none of {known}")
        if any(side > self._size * 8 for side in shape):
            self._refuse(f"has tensor {name[:80]} with a side of {max(shape)}")
        return name, shape, kind, offset

    def _skip(self, kind: int, deep: int) -> None:
        if kind in _SCALARS:
            self._pass(_SCALARS[kind])
        elif kind == _STRING:
            self._pass(self._whole("<Q"))
        elif kind == _ARRAY and deep < DEEPEST:
            of, count = self._whole("<I"), self._whole("<Q")
            if of in _SCALARS:
                self._pass(count * _SCALARS[of])
                return
            if count > LARGEST_HEADER // 8:
                self._refuse(f"has a list of {count} values in its metadata")
            for _ in range(count):
                self._skip(of, deep + 1)
        else:
            self._refuse(f"has a value of type {kind} in its metadata, which there is not")

    def _text(self, most: int) -> bytes:
        length = self._whole("<Q")
        if length > most:
            self._refuse(f"has a name of {length} bytes, expected at most {most}")
        return self._take(length)

    def _whole(self, form: str) -> int:
        return int(struct.unpack(form, self._take(struct.calcsize(form)))[0])

    def _pass(self, count: int) -> None:
        """Go on without reading: a vocabulary takes megabytes."""
        self._left -= count
        if self._left < 0 or self._file.tell() + count > self._size:
            self._refuse("has a header that does not end in it, or none of a reasonable size")
        self._file.seek(count, 1)

    def _take(self, count: int) -> bytes:
        self._left -= count
        held = self._file.read(count) if self._left >= 0 else b""
        if len(held) != count:
            self._refuse("has a header that does not end in it, or none of a reasonable size")
        return held

    def _refuse(self, why: str) -> NoReturn:
        raise InvalidMediaError(f"{self._name} {why}", "download the file again, or another one")
