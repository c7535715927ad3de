"""Finds metadata in PNG, JPEG and WebP files without decoding them, whoever wrote them.

What is damaged or out of proportion reads as missing: a header is never a reason to fail.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from safelight.provenance.xmp import NOTE, property_in

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"
XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
EXTENSION_HEADER = b"http://ns.adobe.com/xmp/extension/\0"
RESOURCES_HEADER = b"Photoshop 3.0\0"
XMP_KEYWORD = "XML:com.adobe.xmp"
LIMIT = 16 * 2**20
"""Longer chunks and packets are passed over, in bytes."""
_BARE_MARKERS = {0x01, *range(0xD0, 0xD8)}
_START_OF_SCAN, _END_OF_IMAGE, _APP1, _APP13, _COMMENT = 0xDA, 0xD9, 0xE1, 0xED, 0xFE
_GUID, _OFFSETS = 32, 8


def png_texts(path: Path) -> dict[str, str]:
    """Text chunks of a PNG by keyword: tEXt, zTXt and iTXt; the first of each keyword."""
    texts: dict[str, str] = {}
    with path.open("rb") as file:
        file.seek(len(PNG))
        for kind, data in _chunks(file, ">I4s", pad=4, wanted=(b"tEXt", b"zTXt", b"iTXt")):
            keyword, _, value = data.partition(b"\0")
            text = _png_text(kind, value)
            if text is not None:
                texts.setdefault(keyword.decode("latin-1"), text)
    return texts


def webp_xmp(path: Path) -> bytes | None:
    """The XMP packet of a WebP file."""
    with path.open("rb") as file:
        file.seek(12)
        for _, data in _chunks(file, "<4sI", pad=0, wanted=(b"XMP ",)):
            return data
    return None


def jpeg_xmp(path: Path) -> bytes | None:
    """The XMP packet of a JPEG file, put together from its segments when it is extended."""
    packets = jpeg_xmp_packets(path)
    return packets[-1] if packets else None


def jpeg_xmp_packets(path: Path) -> list[bytes]:
    """The XMP packet of a JPEG file, and its extension where it has one."""
    main: bytes | None = None
    parts: dict[bytes, bytearray] = {}
    with path.open("rb") as file:
        for data in _segments(file, _APP1):
            if data.startswith(XMP_HEADER):
                main = main or data[len(XMP_HEADER) :]
            elif data.startswith(EXTENSION_HEADER):
                _lay_down(data[len(EXTENSION_HEADER) :], parts)
    if main is None:
        return []
    name = property_in(main, NOTE, "HasExtendedXMP")
    extension = parts.get(name.encode("ascii", "replace")) if name else None
    return [main] if extension is None else [main, bytes(extension)]


def jpeg_iptc(path: Path) -> bytes:
    """Photoshop's resources of a JPEG file, among which IPTC stands."""
    with path.open("rb") as file:
        found = [data for data in _segments(file, _APP13) if data.startswith(RESOURCES_HEADER)]
    return b"".join(data[len(RESOURCES_HEADER) :] for data in found)


def jpeg_comment(path: Path) -> str | None:
    """The first comment of a JPEG file."""
    with path.open("rb") as file:
        for data in _segments(file, _COMMENT):
            return data.decode("utf-8", "replace").strip("\0 ") or None
    return None


def jpeg_extension(packet: bytes, digest: str, room: int = 65_000) -> list[bytes]:
    """The payloads of the APP1 segments that carry a packet too long for one.

    Args:
        packet: the part that goes there.
        digest: its MD5, upper-case hex.
        room: bytes of the packet per segment.

    Source:
        XMP Specification Part 3, 1.1.3.1.
    """
    head = EXTENSION_HEADER + digest.encode()
    return [
        head + struct.pack(">II", len(packet), start) + packet[start : start + room]
        for start in range(0, len(packet), room)
    ]


def _chunks(
    file: BinaryIO, header: str, pad: int, wanted: tuple[bytes, ...]
) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of wanted chunks; `pad` is a checksum's length, 0 stands for even sizes."""
    while True:
        head = file.read(8)
        if len(head) < 8:
            return
        fields = struct.unpack(header, head)
        size, kind = fields if isinstance(fields[0], int) else reversed(fields)
        behind = pad or size % 2
        if kind not in wanted or size > LIMIT:
            file.seek(size + behind, os.SEEK_CUR)
            continue
        data = file.read(size)
        if len(data) < size:
            return
        file.seek(behind, os.SEEK_CUR)
        yield kind, data


def _png_text(kind: bytes, value: bytes) -> str | None:
    if kind == b"tEXt":
        return value.decode("latin-1")
    if kind == b"zTXt":
        inflated = _inflated(value[1:])
        return None if inflated is None else inflated.decode("latin-1")
    compressed, rest = value[:1] == b"\1", value[2:].split(b"\0", 2)
    if len(rest) < 3:
        return None
    content = _inflated(rest[2]) if compressed else rest[2]
    return None if content is None else content.decode("utf-8", "replace")


def _inflated(data: bytes) -> bytes | None:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, LIMIT)
    except zlib.error:
        return None
    return content if stream.eof else None


def _segments(file: BinaryIO, wanted: int) -> Iterator[bytes]:
    file.seek(len(JPEG))
    while True:
        lead, marker = file.read(1), file.read(1)
        while marker == b"\xff":  # fill bytes
            marker = file.read(1)
        if lead != b"\xff" or not marker or marker[0] in (_START_OF_SCAN, _END_OF_IMAGE):
            return
        if marker[0] in _BARE_MARKERS:
            continue
        size = int.from_bytes(file.read(2), "big") - 2
        if size < 0:
            return
        data = file.read(size)
        if marker[0] == wanted:
            yield data


def _lay_down(data: bytes, parts: dict[bytes, bytearray]) -> None:
    guid, offsets = data[:_GUID], data[_GUID : _GUID + _OFFSETS]
    if len(offsets) < _OFFSETS:
        return
    total, start = struct.unpack(">II", offsets)
    piece = data[_GUID + _OFFSETS :]
    if total > LIMIT or start + len(piece) > total:
        return
    whole = parts.setdefault(guid, bytearray(total))
    if len(whole) == total:
        whole[start : start + len(piece)] = piece
