"""XMP, IPTC and comments that other tools wrote into a picture, as far as they stay true."""

import binascii
import io
import struct
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from safelight.errors import InvalidMediaError
from safelight.media.images import head_opened
from safelight.progress import note
from safelight.provenance.containers import (
    JPEG,
    PNG,
    XMP_KEYWORD,
    jpeg_comment,
    jpeg_iptc,
    jpeg_xmp_packets,
    png_texts,
)
from safelight.provenance.xmp import properties_in

_TECHNICAL = (
    "{http://ns.adobe.com/tiff/1.0/}",
    "{http://ns.adobe.com/xmp/note/}",
    "{urn:safelight:xmp/1.0/}",
)
"""Namespaces that tell what is true of the source's pixels alone, or how its packet lies."""
_ELSEWHERE = {
    "{http://ns.adobe.com/camera-raw-settings/1.0/}": "settings of a raw converter",
    "{http://ns.adobe.com/hdr-gain-map/1.0/}": "a gain map",
    "{http://ns.google.com/photos/1.0/container/}": "further parts of the file",
    "{http://ns.google.com/photos/1.0/camera/}": "further parts of the file",
    "{http://ns.google.com/photos/1.0/depthmap/}": "a map of depths",
}
"""What would be applied a second time, or speaks of what is no longer there."""
_XMP, _MM = "{http://ns.adobe.com/xap/1.0/}", "{http://ns.adobe.com/xap/1.0/mm/}"
_EXIF, _PHOTOSHOP = "{http://ns.adobe.com/exif/1.0/}", "{http://ns.adobe.com/photoshop/1.0/}"
_REPLACED = {
    *(_XMP + name for name in ("CreatorTool", "MetadataDate", "ModifyDate", "Thumbnails")),
    *(_MM + name for name in ("InstanceID", "DocumentID", "DerivedFrom")),
    *(_EXIF + name for name in ("PixelXDimension", "PixelYDimension", "ColorSpace")),
    *(_EXIF + name for name in ("NativeDigest", "ExifVersion")),
    *(_PHOTOSHOP + name for name in ("ColorMode", "ICCProfile", "DocumentAncestors")),
    "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType",
}
"""Properties that a result says anew, or that count what it has not."""
_IPTC_TEXT, _IPTC_TAG, _XMP_TAG = "Raw profile type iptc", 33723, 700
_RESOURCE, _IPTC_RESOURCE = b"8BIM", 0x0404


@dataclass(frozen=True)
class Foreign:
    """What other tools wrote."""

    properties: tuple[ET.Element, ...] = ()
    """Of XMP, as children of a description."""
    iptc: bytes | None = None
    """Records of the IPTC Information Interchange Model."""
    comment: str | None = None
    """Of a JPEG or GIF."""


NOTHING_FOREIGN = Foreign()


def foreign_in(path: Path, data: bytes) -> Foreign:
    """Read what there is; what is damaged or cannot stay true is left aside with a note."""
    packets, iptc, comment = _blocks(path, data)
    kept: list[ET.Element] = []
    names, aside = set[str](), set[str]()
    for packet in packets:
        found = properties_in(packet)
        if found is None:
            note("left aside of the source: XMP that is damaged")
            continue
        for each in found:
            space = each.tag.partition("}")[0] + "}"
            if space in _ELSEWHERE:
                aside.add(f"XMP of {_ELSEWHERE[space]}")
            elif not each.tag.startswith(_TECHNICAL) and each.tag not in {*names, *_REPLACED}:
                kept.append(each)
                names.add(each.tag)
    for text in sorted(aside):
        note(f"left aside of the source: {text}")
    return Foreign(tuple(kept), iptc, comment)


def iptc_resource(iptc: bytes) -> bytes:
    """IPTC records as Photoshop wraps them, which is how JPEG and PNG hold them.

    Source:
        Adobe Photoshop File Formats Specification, Image Resource Blocks.
    """
    padded = iptc + bytes(len(iptc) % 2)
    return _RESOURCE + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(iptc)) + padded


def iptc_text(iptc: bytes) -> tuple[str, str]:
    """Keyword and text that hold IPTC in a PNG, as ImageMagick and ExifTool write and read it."""
    digits = iptc_resource(iptc).hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return _IPTC_TEXT, f"\niptc\n{len(digits) // 2:8d}\n{lines}\n"


def _blocks(path: Path, data: bytes) -> tuple[list[bytes], bytes | None, str | None]:
    """XMP packets, IPTC records and comment of a file."""
    if data.startswith(PNG):
        texts = png_texts(path)
        xmp = texts.get(XMP_KEYWORD)
        return ([xmp.encode()] if xmp else []), _iptc_in_text(texts.get(_IPTC_TEXT)), None
    if data.startswith(JPEG):
        resources = jpeg_iptc(path)
        return jpeg_xmp_packets(path), _iptc_in_resources(resources), jpeg_comment(path)
    try:
        with head_opened(data) as image:
            tags = getattr(image, "tag_v2", {})
            xmp = _bytes(image.info.get("xmp") or tags.get(_XMP_TAG))
            comment, iptc = _bytes(image.info.get("comment")), _bytes(tags.get(_IPTC_TAG))
    except InvalidMediaError:
        return [], None, None
    return [xmp] if xmp else [], iptc, _text(comment)


def _bytes(value: object) -> bytes | None:
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) and value.strip(b"\0 ") else None


def _text(value: bytes | None) -> str | None:
    return value.decode("utf-8", "replace").strip("\0 ") if value else None


def _iptc_in_text(text: str | None) -> bytes | None:
    lines = (text or "").split("\n", 3)
    if len(lines) < 4:
        return None
    try:
        content = bytes.fromhex(lines[3])
    except (ValueError, binascii.Error):
        note("left aside of the source: IPTC that is damaged")
        return None
    return _iptc_in_resources(content) if content.startswith(_RESOURCE) else content


def _iptc_in_resources(data: bytes | None) -> bytes | None:
    stream = io.BytesIO(data or b"")
    while stream.read(4) == _RESOURCE:
        head = stream.read(3)
        if len(head) < 3:
            return None
        name = head[2]
        stream.seek(name + (name + 1) % 2, io.SEEK_CUR)
        told = stream.read(4)
        if len(told) < 4:
            return None
        (size,) = struct.unpack(">I", told)
        content = stream.read(size)
        if int.from_bytes(head[:2], "big") == _IPTC_RESOURCE and len(content) == size:
            return content or None
        stream.seek(size % 2, io.SEEK_CUR)
    return None
