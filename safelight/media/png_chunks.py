"""What the pixels of a PNG need, apart from everything else in the file."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

START = b"\x89PNG\r\n\x1a\n"
PROFILE_LIMIT = 8 * 2**20
"""Bytes of an unpacked colour profile; the largest of printers have 4 MiB."""
TEXT_LIMIT = 2**20
"""Bytes of an unpacked text that may hold EXIF; JPEG, where it comes from, has 64 KiB."""
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_FRAMES = (b"acTL", b"fcTL", b"fdAT")
_COLOUR = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM")
_EXIF_TEXTS = (b"Raw profile type exif", b"Raw profile type APP1")


@dataclass
class PngParts:
    """A PNG taken apart."""

    pixels: bytes = b""
    """A PNG of its own with nothing but what makes the first picture."""
    colour: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    """Content of cICP, iCCP, sRGB, gAMA and cHRM, where they are whole."""
    exif: bytes | None = None
    """The EXIF block."""
    dots_per_metre: int | None = None
    """Printing density, where it is the same along both sides."""
    frames: int = 1
    """Pictures of an animation."""
    left_aside: list[str] = field(default_factory=list[str])
    """What was not taken, for people to read."""


def png_parts(data: bytes, *, head_only: bool = False, animated: bool = False) -> PngParts:
    """Take a PNG apart; what only describes the picture never makes it fail.

    Args:
        data: the file, or its beginning.
        head_only: stop where the pixels begin.
        animated: have the frames behind the first in `pixels` too.

    Source:
        PNG Specification, third edition, W3C 2025.
    """
    parts, kept = PngParts(), [memoryview(data)[: len(START)]]
    for kind, start, size, whole in _chunks(data):
        if kind == b"acTL" and whole and size == 8:
            parts.frames = max(int.from_bytes(data[start : start + 4], "big"), 1)
        if kind in _PIXELS or not kind[0] & 0x20 or (animated and kind in _FRAMES):
            if kind == b"IDAT" and head_only:
                kept.append(memoryview(data)[start - 8 : start])
                break
            if kind == b"tRNS" and not whole:
                parts.left_aside.append("transparency with a wrong checksum")
                continue
            kept.append(memoryview(data)[start - 8 : start + size + 4])
            if kind == b"IEND":
                break
        elif not head_only and (kind not in _FRAMES or not whole):
            _take(kind, data[start : start + size], whole, parts)
    parts.pixels = b"".join(kept)
    return parts


def inflated(packed: bytes, limit: int) -> bytes | None:
    """What a zlib stream holds; None where it is damaged or longer than `limit` bytes."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(packed, limit + 1)
    except zlib.error:
        return None
    return content if stream.eof and len(content) <= limit else None


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int, bool]]:
    """Kind, start and size of each chunk, and whether its checksum is right.

    That of the pixels is left to the decoder.
    """
    place, view = len(START), memoryview(data)
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        start = place + 8
        checked = kind in (b"IDAT", b"IEND", b"IHDR", b"PLTE", b"fdAT")
        if not checked and start + size + 4 <= len(data):
            (stored,) = struct.unpack_from(">I", data, start + size)
            checked = stored == zlib.crc32(view[place + 4 : start + size])
        yield kind, start, size, checked
        place = start + size + 4


def _take(kind: bytes, content: bytes, whole: bool, parts: PngParts) -> None:
    if not whole:
        name = kind.decode("latin-1") if kind.isalnum() else repr(kind)
        parts.left_aside.append(f"the chunk {name} with a wrong checksum")
    elif kind in _COLOUR:
        parts.colour.setdefault(kind, content)
    elif kind == b"eXIf":
        parts.exif = parts.exif or content
    elif kind == b"pHYs" and len(content) == 9:
        across, down, unit = struct.unpack(">IIB", content)
        if unit == 1 and across == down and across > 0:
            parts.dots_per_metre = across
    elif kind == b"zTXt" and content.startswith(_EXIF_TEXTS):
        parts.exif = parts.exif or _exif_in_text(content)


def _exif_in_text(content: bytes) -> bytes | None:
    """EXIF as ImageMagick used to write it: a text with a head of three lines, then hex digits."""
    text = inflated(content.partition(b"\0")[2][1:], TEXT_LIMIT)
    lines = (text or b"").split(b"\n", 3)
    try:
        return bytes.fromhex(lines[3].decode("ascii"))
    except (IndexError, ValueError):
        return None
