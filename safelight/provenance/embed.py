"""Writes into image and video files how they were made, and reads it back.

Nothing that is written depends on the clock or the machine: the same pixels and record give the
same bytes with the same library versions.
"""

import io
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from pydantic import ValidationError

from safelight.errors import InvalidFieldValueError, MissingFileError
from safelight.media.animation import Sequence, Timing
from safelight.media.layers import on_white
from safelight.progress import note
from safelight.provenance.carried import NOTHING, Carried, exif_bytes
from safelight.provenance.containers import (
    JPEG,
    PNG,
    RESOURCES_HEADER,
    XMP_HEADER,
    XMP_KEYWORD,
    jpeg_extension,
    jpeg_xmp,
    png_texts,
    webp_xmp,
)
from safelight.provenance.foreign import iptc_resource, iptc_text
from safelight.provenance.parameters_text import creator_tool, parameters_text, printable
from safelight.provenance.png import apng_bytes, png_bytes
from safelight.provenance.record import FileRecord
from safelight.provenance.xmp import (
    OURS,
    packet,
    prompt_of,
    property_in,
    record_json,
    source_type,
    split_packet,
)

KEY = "safelight"
"""Keyword of the PNG text chunk that holds the record."""
LOSSLESS = frozenset({"image/png", "image/webp"})
"""Media types that decode to exactly the pixels they were made of."""
JPEG_QUALITY = 95
"""The highest at which libjpeg still gains from quantising; colour is kept at full resolution."""
LONGEST_SIDE = {"image/png": 2**31 - 1, "image/jpeg": 65_500, "image/webp": 16_383}
"""What each format holds, in pixels."""
SEGMENT_ROOM = 65_533
"""Bytes one JPEG segment can carry."""
TAGGED = (b"\x1aE\xdf\xa3", b"fLaC", b"OggS", b"ID3")
"""How files of Matroska, FLAC, Ogg and MP3 begin that say something about themselves."""
READ = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,flac,ogg,mp3,wav"
"""FFmpeg's names of containers whose comment may hold a record."""
TITLE_LENGTH = 80
"""Characters of the prompt that a video's title shows."""
_APP1, _APP13 = 0xE1, 0xED
_USER_COMMENT, _COLOR_SPACE, _SRGB = 0x9286, 0xA001, 1
_PROFILE_DATE = slice(24, 36)


def image_bytes(
    pixels: NDArray[np.uint8], record: FileRecord, media_type: str, carried: Carried = NOTHING
) -> bytes:
    """Encode (H, W, 3) uint8 sRGB with its record; the same input gives the same bytes.

    A fourth channel is transparency; JPEG has none, so it is laid on white there, with a note. One
    channel is grey, and two are grey with transparency; WebP has only colours.
    What is carried over from the source and has no place in the format is noted.

    PNG and WebP are lossless, JPEG has quality 95 and full colour resolution.

    Raises:
        InvalidFieldValueError: not image/png, image/jpeg or image/webp, or a side is longer than
            the format holds.
    """
    limit = LONGEST_SIDE.get(media_type)
    if limit is None:
        raise InvalidFieldValueError(
            f"media type is {media_type!r}, expected one of {', '.join(sorted(LONGEST_SIDE))}",
            "choose one of these",
        )
    height, width = pixels.shape[:2]
    if max(height, width) > limit:
        raise InvalidFieldValueError(
            f"the picture is {width}x{height} px, {media_type} holds at most {limit} px a side",
            "choose image/png",
        )
    if media_type == "image/png":
        texts, exif = _png_extras(record, carried)
        return png_bytes(pixels, texts, exif, carried.dots_per_metre)
    _note_texts(carried)
    buffer = io.BytesIO()
    if media_type == "image/jpeg":
        if pixels.shape[2] in (2, 4):
            note("JPEG has no transparency: laid on white")
        grey = pixels.shape[2] < 3
        laid = Image.fromarray(on_white(_coloured(pixels)))
        _save_jpeg(laid.convert("L") if grey else laid, record, buffer, carried)
    else:
        _save_webp(Image.fromarray(_coloured(pixels)), record, buffer, carried)
    return buffer.getvalue()


def _coloured(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3 or 4) of any number of channels."""
    if pixels.shape[2] > 2:
        return pixels
    return np.dstack((np.repeat(pixels[..., :1], 3, axis=2), pixels[..., 1:]))


def animation_bytes(
    frames: Iterator[NDArray[np.uint8]],
    timing: Timing,
    record: FileRecord,
    media_type: str,
    carried: Carried = NOTHING,
) -> bytes:
    """Encode an animation with its record, lossless; WebP keeps whole milliseconds.

    Args:
        frames: (H, W, 4) uint8 sRGB with transparency; as many as the timing has.
        timing: how it plays.
        record: how it was made.
        media_type: WebP or PNG.
        carried: from the source.

    Raises:
        InvalidFieldValueError: another media type.
    """
    if media_type == "image/png":
        texts, exif = _png_extras(record, carried)
        return apng_bytes(frames, timing.lasts, timing.plays, texts, exif, carried.dots_per_metre)
    if media_type != "image/webp":
        raise InvalidFieldValueError(
            f"media type of an animation is {media_type!r}, expected image/png or image/webp",
            "choose one of these",
        )
    _note_texts(carried)
    ends = [round(end * 1000) for end in accumulate(timing.lasts)]
    lasts = [end - begin for begin, end in pairwise([0, *ends])]
    buffer = io.BytesIO()
    sequence = Sequence(frames, len(lasts))
    _save_webp(sequence, record, buffer, carried, duration=lasts, loop=timing.plays, save_all=True)
    return buffer.getvalue()


def video_tags(record: FileRecord) -> dict[str, str]:
    """Container metadata of video and sound: what players show, and the record as the comment."""
    tags = {
        "comment": record_json(record),
        "software": creator_tool(),
        "encoder": creator_tool(),
        "digital_source_type": source_type(record),
    }
    prompt = prompt_of(record)
    if prompt is not None:
        line = " ".join(printable(prompt).split())
        cut = line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"
        tags |= {"title": cut, "description": printable(prompt)}
    text = parameters_text(record)
    if text is not None:
        tags["parameters"] = text
    return tags


def read_record(path: Path) -> FileRecord | None:
    """The record inside a picture or video, found by content; None when there is none to read.

    Raises:
        MissingFileError: there is no such file.
    """
    if not path.is_file():
        raise MissingFileError(f"no file at {path}", "check the path")
    text = _record_text(path)
    if text is None:
        return None
    try:
        return FileRecord.model_validate_json(text)
    except ValidationError:  # someone else's text under our name
        return None


def _record_text(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(12)
    if head.startswith(PNG):
        return png_texts(path).get(KEY)
    if head[4:8] == b"ftyp" or head.startswith(TAGGED) or head[8:] == b"WAVE":
        return _comment(path)
    found = None
    if head.startswith(JPEG):
        found = jpeg_xmp(path)
    elif head.startswith(b"RIFF") and head[8:] == b"WEBP":
        found = webp_xmp(path)
    return None if found is None else property_in(found, OURS, "record")


def _comment(path: Path) -> str | None:
    import av
    import av.error

    try:
        with av.open(
            str(path),
            metadata_errors="replace",
            options={"format_whitelist": READ, "protocol_whitelist": "file"},
        ) as container:
            own = [each.metadata for each in container.streams.audio]  # where Ogg has them
            tags = {
                name.lower(): value
                for told in (*own, container.metadata)
                for name, value in told.items()
            }
    except av.error.FFmpegError:
        return None
    return tags.get("comment")


def _note_texts(carried: Carried) -> None:
    for keyword, text in carried.texts:
        note(f"left aside of the source: its text {keyword!r}, {len(text)} characters")


def _png_extras(record: FileRecord, carried: Carried) -> tuple[list[tuple[str, str]], bytes]:
    """Texts by keyword, and the EXIF block."""
    foreign = carried.foreign
    texts = [
        (XMP_KEYWORD, packet(record, with_record=False, foreign=foreign.properties).decode()),
        (KEY, record_json(record)),
    ]
    parameters = parameters_text(record)
    if parameters is not None:
        texts.insert(0, ("parameters", parameters))
    if foreign.iptc is not None:
        texts.append(iptc_text(foreign.iptc))
    if foreign.comment is not None:
        texts.append(("Comment", foreign.comment))
    own = {keyword for keyword, _ in texts}
    for keyword, text in carried.texts:
        if keyword in own:
            note(f"left aside of the source: its text {keyword!r}, which this run replaces")
        else:
            texts.append((keyword, text))
    exif = _exif(record, carried) if carried.tags or carried.comment else b""
    return texts, exif.removeprefix(b"Exif\0\0")


def _save_jpeg(
    image: Image.Image, record: FileRecord, buffer: io.BytesIO, carried: Carried
) -> None:
    foreign, segments = carried.foreign, list[tuple[int, bytes]]()
    whole = packet(record, with_record=True, foreign=foreign.properties)
    if len(XMP_HEADER) + len(whole) > SEGMENT_ROOM:
        whole, extension, digest = split_packet(record, foreign.properties)
        segments = [(_APP1, data) for data in jpeg_extension(extension, digest)]
    if foreign.iptc is not None:
        resources = RESOURCES_HEADER + iptc_resource(foreign.iptc)
        if len(resources) > SEGMENT_ROOM:
            note("left aside of the source: IPTC that is longer than a segment of JPEG")
        else:
            segments.append((_APP13, resources))
    exif = _exif(record, carried)
    if len(exif) > SEGMENT_ROOM:  # the prompt alone fills a segment; the XMP still has it all
        exif = _exif(record, carried, with_text=False)
    if len(exif) > SEGMENT_ROOM:
        note("left aside of the source: EXIF that is longer than JPEG holds")
        exif = _exif(record, NOTHING, with_text=False)
    density = carried.dots_per_inch
    options: dict[str, Any] = {}
    if density is not None:
        options["dpi"] = (round(density), round(density))
    if foreign.comment is not None:
        options["comment"] = foreign.comment.encode()[:SEGMENT_ROOM]
    image.save(
        buffer,
        "JPEG",
        quality=JPEG_QUALITY,
        subsampling="4:4:4",
        optimize=False,
        icc_profile=None if image.mode == "L" else _srgb_profile(),
        exif=exif,
        xmp=whole,
        extra=b"".join(
            bytes((0xFF, marker)) + (len(data) + 2).to_bytes(2, "big") + data
            for marker, data in segments
        ),
        **options,
    )


def _save_webp(
    image: Image.Image,
    record: FileRecord,
    buffer: io.BytesIO,
    carried: Carried,
    **animation: object,
) -> None:
    if carried.foreign.iptc is not None:
        note("left aside of the source: IPTC, for which WebP has no place")
    if carried.foreign.comment is not None:
        note("left aside of the source: its comment, for which WebP has no place")
    image.save(
        buffer,
        "WEBP",
        lossless=True,
        exact=True,  # colours that are not seen too
        quality=40,  # of the search, not of the picture
        method=2,
        icc_profile=_srgb_profile(),
        exif=_exif(record, carried),
        xmp=packet(record, with_record=True, foreign=carried.foreign.properties),
        **animation,
    )


def _exif(record: FileRecord, carried: Carried, *, with_text: bool = True) -> bytes:
    """Big-endian EXIF with the `parameters` text where AUTOMATIC1111 puts it."""
    details: dict[int, int | bytes] = {_COLOR_SPACE: _SRGB}
    text = parameters_text(record) if with_text else None
    if text is not None:
        details[_USER_COMMENT] = b"UNICODE\0" + text.encode("utf-16-be")
        if carried.comment is not None:
            note("left aside of the source: its comment in EXIF, which this run replaces")
    elif carried.comment is not None:
        details[_USER_COMMENT] = carried.comment
    return exif_bytes(carried, details, creator_tool())


@lru_cache(maxsize=1)
def _srgb_profile() -> bytes:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[_PROFILE_DATE] = bytes.fromhex("07d000010001000000000000")  # else it is today's
    return bytes(profile)
