"""What a picture's file says that a picture made of it should go on saying."""

import io
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from safelight.errors import InvalidMediaError
from safelight.media.images import metadata_of
from safelight.progress import note
from safelight.provenance.containers import PNG, XMP_KEYWORD, png_texts
from safelight.provenance.foreign import NOTHING_FOREIGN, Foreign, foreign_in
from safelight.provenance.record import FileRecord
from safelight.provenance.xmp import description_of

OURS = ("safelight", XMP_KEYWORD)
MAIN, PLACE = 0x8769, 0x8825
COMMENT = 0x9286
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"
_KEPT = (
    *(0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0132, 0x013B),
    *(0x4746, 0x4749, 0x8298, *range(0x9C9B, 0x9CA0)),
)
"""Title, camera, density, time, artist, rating, copyright and their Windows twins."""
_LEFT_OUT = {0x927C, 0xA001, 0xA002, 0xA003, 0xA005, 0xA20B, COMMENT}
"""Maker's notes, which break when moved, and what is true of the source alone."""
_X_DENSITY, _Y_DENSITY, _DENSITY_UNIT, _INCH = 0x011A, 0x011B, 0x0128, 2
DAMAGED_EXIF = "left aside of the source: EXIF that is damaged"
TEXT_ROOM = 16 * 2**20
"""Characters of texts that are carried over."""


@dataclass(frozen=True)
class Carried:
    """Metadata of a source."""

    tags: dict[int, Any]
    """EXIF that stays true: camera, time, artist, copyright; exposure and place in their parts."""
    comment: bytes | None = None
    """What another tool wrote about how the picture was made, as EXIF holds it."""
    dots_per_metre: int | None = None
    """Printing density."""
    texts: tuple[tuple[str, str], ...] = ()
    """Texts of a PNG, by keyword."""
    foreign: Foreign = NOTHING_FOREIGN
    """XMP, IPTC and comment."""

    @property
    def dots_per_inch(self) -> float | None:
        """The same density in the unit of EXIF and JPEG."""
        return None if self.dots_per_metre is None else round(self.dots_per_metre * 0.0254, 2)


NOTHING = Carried({})


def carried_from(path: Path, data: bytes, made_by: FileRecord | None) -> Carried:
    """Read what is to be kept from a picture's file; what is damaged is left aside with a note.

    Args:
        path: the file.
        data: its bytes.
        made_by: its record, where it is a result of ours; everything about making it follows from
            there.
    """
    ours = made_by is not None
    try:
        exif, dots_per_metre = metadata_of(data)
    except InvalidMediaError:
        return NOTHING
    tags, comment = _tags(exif, dots_per_metre)
    texts: list[tuple[str, str]] = []
    if data.startswith(PNG):
        room = TEXT_ROOM
        for keyword, text in png_texts(path).items():
            made = keyword == "parameters" and ours
            if keyword in OURS or keyword.startswith("Raw profile") or made:
                continue
            room -= len(text)
            if room < 0:
                note(f"left aside of the source: its text {keyword!r}, {len(text)} characters")
                room += len(text)
            else:
                texts.append((keyword, text))
    foreign = foreign_in(path, data)
    if made_by is not None:
        foreign = replace(foreign, properties=tuple(_by_people(foreign.properties, made_by)))
    return Carried(tags, None if ours else comment, dots_per_metre, tuple(texts), foreign)


def _by_people(properties: tuple[ET.Element, ...], made_by: FileRecord) -> Iterator[ET.Element]:
    """Without the description that follows from the record."""
    for each in properties:
        if not (
            each.tag == DESCRIPTION
            and "".join(each.itertext()).strip() == description_of(made_by).strip()
        ):
            yield each


def exif_bytes(carried: Carried, main: dict[int, Any], software: str) -> bytes:
    """An EXIF block of what is carried over, with tags of ours on top.

    Args:
        carried: from the source.
        main: tags of the part on the exposure.
        software: what made the file.
    """
    exif = Image.Exif()
    for tag, value in carried.tags.items():
        exif[tag] = value
    exif[0x0131] = software
    exif[MAIN] = {**carried.tags.get(MAIN, {}), **main}
    return exif.tobytes()


def _tags(exif: bytes | None, dots_per_metre: int | None) -> tuple[dict[int, Any], bytes | None]:
    found: dict[int, Any] = {}
    comment: bytes | None = None
    read = Image.Exif()
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")  # of Pillow, where it skips what it cannot read
        try:
            if exif:
                read.load(exif)
                found = {tag: read[tag] for tag in _KEPT if tag in read}
                main, place = dict(read.get_ifd(MAIN)), dict(read.get_ifd(PLACE))
                written = main.get(COMMENT)
                comment = written if isinstance(written, bytes) and written.strip(b"\0 ") else None
                found[MAIN] = {tag: value for tag, value in main.items() if tag not in _LEFT_OUT}
                found[PLACE] = place
        except Exception:  # noqa: BLE001  # the edge to Pillow's reader of strangers' EXIF
            note(DAMAGED_EXIF)
            found = {}
    if remarks:
        note(DAMAGED_EXIF)
    kept = {
        tag: value for tag, value in found.items() if value != {} and _can_be_written(tag, value)
    }
    for tag in found.keys() - kept.keys():
        if found[tag]:
            note(f"left aside of the source: EXIF tag {tag:#06x}, which is damaged")
    if dots_per_metre is not None:
        density = round(dots_per_metre * 0.0254, 2)
        kept |= {_X_DENSITY: density, _Y_DENSITY: density, _DENSITY_UNIT: _INCH}
    return kept, comment


def _can_be_written(tag: int, value: object) -> bool:
    exif = Image.Exif()
    exif[tag] = value
    try:
        again = Image.Exif()
        again.load(exif.tobytes())
        Image.new("L", (1, 1)).save(io.BytesIO(), "PNG", exif=exif)
    except Exception:  # noqa: BLE001  # as above: values of every type come from strangers
        return False
    return True
