"""What the pixels of a JPEG need, apart from everything else in the file."""

import io
import re
from dataclasses import dataclass, field

from PIL import Image

from safelight.errors import InvalidMediaError

MOST_SCANS = 200
"""Each takes as long as decoding the whole picture once; cameras and optimisers write up to 20."""
END = b"\xff\xd9"
EXIF_HEADER = b"Exif\0\0"
_OTHER_BITS = b"\xaa\x55\x33\xcc" * 64
"""What stands for pixels in a JPEG of which it is not known whether any are missing."""
_PROFILE_HEADER, _PICTURES_HEADER = b"ICC_PROFILE\0", b"MPF\0"
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
"""In scans, FF before 00 is a byte of pixels and D0 to D7 are restarts. Any number of FF may stand
before a marker; as a single byte at the beginning, FF is found sixteen times as fast."""
_START_OF_SCAN, _END_OF_IMAGE, _TEM, _START_OF_IMAGE = 0xDA, 0xD9, 0x01, 0xD8
_APP0, _APP1, _APP2, _APP14, _APP15, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xFE


@dataclass
class JpegParts:
    """A JPEG taken apart."""

    pixels: bytes = b""
    """A JPEG of its own with nothing but what makes the first picture."""
    exif: bytes | None = None
    """The EXIF block, without its header."""
    profile: bytes | None = None
    """The ICC profile, put together."""
    ended: bool = False
    """Whether the end marker is there."""
    left_aside: list[str] = field(default_factory=list[str])
    """What was not taken, for people to read."""


def jpeg_parts(data: bytes, *, head_only: bool = False) -> JpegParts:
    """Take a JPEG apart; what only describes the picture never makes it fail.

    Args:
        data: the file, or its beginning.
        head_only: stop at the first scan.

    Raises:
        InvalidMediaError: it has so many scans that decoding would take minutes.

    Source:
        ITU-T T.81, annex B.
    """
    parts, kept = JpegParts(), [memoryview(data)[:2]]
    pieces, scans, place = dict[int, bytes](), 0, 2
    others = False
    while (found := _MARKER.search(data, place)) is not None:
        marker, start = found[1][0], found.end()
        if marker == _END_OF_IMAGE:
            parts.ended = True
            break
        if marker in (_TEM, _START_OF_IMAGE):
            place = start
            continue
        size = int.from_bytes(data[start : start + 2], "big")
        place = start + max(size, 2)
        content = data[start + 2 : place]
        if marker == _APP1 and content.startswith(EXIF_HEADER):
            parts.exif = parts.exif or content[len(EXIF_HEADER) :]
        elif marker == _APP2 and content.startswith(_PROFILE_HEADER):
            pieces[content[12] if len(content) > 12 else 0] = content[14:]
        elif marker == _APP2 and content.startswith(_PICTURES_HEADER):
            others = True
        if not (_APP0 < marker <= _APP15 or marker == _COMMENT) or marker == _APP14:
            scans += marker == _START_OF_SCAN
            if marker == _START_OF_SCAN and not head_only:
                behind = _MARKER.search(data, place)
                place = behind.start() if behind else len(data)
            kept.append(memoryview(data)[start - 2 : place])
            if marker == _START_OF_SCAN and head_only:
                break
    if scans > MOST_SCANS:
        raise InvalidMediaError(
            f"the JPEG has {scans} scans, at most {MOST_SCANS} are taken",
            "save the picture again, as a baseline JPEG or with the usual 10 scans",
        )
    if others:
        parts.left_aside.append("further pictures behind the first (MPF)")
    parts.profile = b"".join(pieces[number] for number in sorted(pieces)) or None
    parts.pixels = b"".join([*kept, END] if not head_only else kept)
    return parts


def require_all_scans(ended: bytes) -> None:
    """Refuse a JPEG without its end that lacks more than its end.

    The decoder fills what is missing with grey and says nothing. Where nothing is missing, other
    bits behind the last scan change no pixel.
    """
    pictures: list[bytes] = []
    for data in (ended, ended[: -len(END)] + _OTHER_BITS + END):
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            pictures.append(image.tobytes())
    if pictures[0] != pictures[1]:
        raise InvalidMediaError(
            "the picture breaks off: the JPEG ends before its last pixels", "export it again"
        )
