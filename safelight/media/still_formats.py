"""Which format a still picture has, told by its first bytes, and who decodes it."""

import importlib
import struct

from safelight.errors import DependencyMissingError

HEAD = 64
"""Bytes that tell the format."""
MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
    "HEIF": "image/heic",
    "JXL": "image/jxl",
}
"""Pillow's format names of the pictures that are taken."""
NAMES = "PNG, JPEG, WebP, GIF, TIFF, BMP, AVIF, HEIC or JPEG XL"
ANIMATED = frozenset({"PNG", "WEBP", "GIF", "AVIF"})
"""Of which frames follow one another in time; further pictures of the others are pages."""
BOXES = 2**16
"""Bytes at the beginning of an AVIF that hold what it says of its first picture."""
_PLUGINS = {"HEIF": ("pillow_heif", "pillow-heif"), "JXL": ("pillow_jxl", "pillow-jxl-plugin")}
_STARTS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\xff\x0a": "JXL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JXL",
}
_OTHERS = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive or an office document",
    b"\x1f\x8b": "a gzip archive",
    b"\x1aE\xdf\xa3": "a video or sound (Matroska or WebM)",
    b"RIFF": "a video or sound (RIFF)",
    b"OggS": "a video or sound (Ogg)",
    b"ID3": "sound (MP3)",
    b"fLaC": "sound (FLAC)",
    b"8BPS": "a Photoshop document",
    b"\x7fELF": "a program",
}
"""What people take for a picture, by how it begins."""
_AVIF = {b"avif", b"avis"}
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_BIT_WIDTHS = (9, 13, 18, 30)
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def other_kind(start: bytes) -> str:
    """What a file is that is no still picture, in words: text, a video, an archive, its bytes."""
    for magic, name in _OTHERS.items():
        if start.startswith(magic):
            return name
    if start[4:8] == b"ftyp":
        return "a video or sound (MP4 or a kin of it)"
    cut = start.decode("utf-8", "ignore")  # the last character may be cut in two
    plain = cut.isprintable() or all(c.isprintable() or c in "\t\r\n\f" for c in cut)
    if len(cut.encode()) > len(start) - 4 and plain:
        return f"text that begins with {cut[:16]!r}"
    return f"bytes that start with {start[:8]!r}"


def still_format(start: bytes) -> str | None:
    """Pillow's name of the format of a still picture; None for anything else.

    Args:
        start: the first `HEAD` bytes.
    """
    for magic, name in _STARTS.items():
        if start.startswith(magic):
            return name
    if start.startswith(b"RIFF"):
        return "WEBP" if start[8:12] == b"WEBP" else None
    if start.startswith(b"BM") and start[6:10] == bytes(4) and len(start) >= 26:
        return "BMP"
    if start[4:8] == b"ftyp":
        length = min(int.from_bytes(start[:4], "big"), len(start))
        brands = {start[8:12], *(start[at : at + 4] for at in range(16, length - 3, 4))}
        if start[8:12] in _AVIF or (start[8:12] in _HEIF and brands & _AVIF):
            return "AVIF"
        return "HEIF" if start[8:12] in _HEIF else None
    return None


def open_plugin(found: str) -> None:
    """Have Pillow know a format that it does not by itself; loaded when first met.

    Raises:
        DependencyMissingError: its reader is not installed.
    """
    if found not in _PLUGINS:
        return
    name, package = _PLUGINS[found]
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise DependencyMissingError(
            f"nothing reads {MEDIA_TYPES[found]} here: {package} is not installed ({error})",
            f"pip install --no-deps {package}, or send the picture as PNG",
        ) from error
    if found == "HEIF":
        # one picture decoded at a time, no thumbnails: only the first is wanted
        module.register_heif_opener(thumbnails=False, decode_threads=2)


def jxl_size(data: bytes) -> tuple[int, int]:
    """Width and height of a JPEG XL file; its decoder says so only after decoding all of it.

    Raises:
        ValueError: there is no head.

    Source:
        ISO/IEC 18181-1, SizeHeader; 18181-2 for the boxes.
    """
    stream = data if data.startswith(b"\xff\x0a") else _jxl_codestream(data)
    if not stream.startswith(b"\xff\x0a") or len(stream) < 12:
        raise ValueError("no head of a JPEG XL codestream")
    bits, place = int.from_bytes(stream[2:16], "little"), 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        return bits >> (place - count) & ((1 << count) - 1)

    small = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if small else take(_BIT_WIDTHS[take(2)]) + 1

    height, ratio = side(), take(3)
    if ratio == 0:
        return side(), height
    across, down = _RATIOS[ratio - 1]
    return height * across // down, height


def _jxl_codestream(data: bytes) -> bytes:
    place = 0
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        head = 8
        if size == 1 and place + 16 <= len(data):
            (size,), head = struct.unpack_from(">Q", data, place + 8), 16
        if kind in (b"jxlc", b"jxlp"):
            start = place + head + (4 if kind == b"jxlp" else 0)
            return data[start : start + 32]
        if size < head:
            break
        place += size
    return b""


def primaries_told(avif: bytes) -> tuple[int, int] | None:
    """Code points of primaries and transfer that an AVIF has; None where it has none.

    Source:
        ISO/IEC 14496-12, 12.1.5, ColourInformationBox.
    """
    place = avif.find(b"colrnclx", 0, BOXES)
    if place < 0 or place + 12 > len(avif):
        return None
    primaries, transfer = struct.unpack_from(">HH", avif, place + 8)
    return primaries, transfer


def bits_told(avif: bytes) -> int:
    """Bits a channel of an AVIF; 8 where it does not say.

    Source:
        ISO/IEC 23008-12, 6.5.6, PixelInformationProperty.
    """
    place = avif.find(b"pixi", 0, BOXES)
    return avif[place + 9] if 0 <= place < len(avif) - 9 else 8
