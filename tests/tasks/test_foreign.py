"""What other tools wrote into a picture goes on standing in what becomes of it."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safelight.provenance.containers import RESOURCES_HEADER
from safelight.provenance.embed import read_record
from safelight.provenance.foreign import foreign_in, iptc_resource, iptc_text
from safelight.provenance.xmp import properties_in
from safelight.store.artifact import ArtifactRef
from safelight.store.inputs import keep_media
from safelight.store.store import current_store
from tasks.enhance import EnhanceParams, enhance
from tasks.grade import GradeParams, grade

IPTC = b"\x1c\x02\x00\x00\x02\x00\x04" + b"".join(
    b"\x1c\x02" + bytes((tag,)) + struct.pack(">H", len(text)) + text
    for tag, text in ((25, b"harbour"), (25, b"night"), (80, b"A. North"), (120, b"Boats"))
)
PACKET = b"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
 xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/" xmp:Rating="4" tiff:Orientation="6"
 crs:Exposure2012="+1.00" xmp:CreatorTool="Somebody's 1.0">
<dc:subject><rdf:Bag><rdf:li>harbour</rdf:li><rdf:li>night</rdf:li></rdf:Bag></dc:subject>
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">Boats at night</rdf:li></rdf:Alt>
</dc:description>
<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">CC BY 4.0</rdf:li></rdf:Alt></dc:rights>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


def picture(kind: str, packet: bytes = PACKET) -> bytes:
    values = np.arange(24 * 20 * 3, dtype=np.uint32).reshape(20, 24, 3) * 37 % 256
    image, buffer = Image.fromarray(values.astype(np.uint8)), io.BytesIO()
    if kind == "PNG":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", packet.decode())
        info.add_text(*iptc_text(IPTC), zip=True)
        image.save(buffer, kind, pnginfo=info)
    elif kind == "JPEG":
        resources = RESOURCES_HEADER + b"8BIM\x04\x25\0\0\0\0\0\x02ab" + iptc_resource(IPTC)
        extra = b"\xff\xed" + struct.pack(">H", len(resources) + 2) + resources
        image.save(buffer, kind, xmp=packet, extra=extra, comment=b"seen from the pier")
    elif kind == "TIFF":
        image.save(buffer, kind, tiffinfo={700: packet, 33723: IPTC})
    else:
        image.save(buffer, kind, xmp=packet)
    return buffer.getvalue()


@pytest.fixture
def brought(volume: Path, tmp_path: Path):
    def bring(data: bytes) -> ArtifactRef:
        path = tmp_path / "picture"
        path.write_bytes(data)
        return keep_media(path, ("image",))

    return bring


def stated(made: ArtifactRef) -> dict[str, str]:
    """Text of each property of a result's XMP, by its local name."""
    path = current_store().fetch(made)
    found = foreign_in(path, path.read_bytes())
    return {each.tag.partition("}")[2]: "|".join(each.itertext()) for each in found.properties}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_xmp_goes_on_and_what_was_true_of_the_source_alone_does_not(brought, kind):
    made = enhance.fn(brought(picture(kind)), EnhanceParams(quality_preset="low"))
    found = stated(made)
    assert found["Rating"] == "4"
    assert "harbour" in found["subject"]
    assert "CC BY 4.0" in found["rights"]
    assert "Boats at night" in found["description"]
    assert not {"Orientation", "Exposure2012"} & found.keys()
    notes = " ".join(str(text) for text in made.metadata["notes"])
    assert "XMP of settings of a raw converter" in notes
    assert read_record(current_store().fetch(made)).stage == "enhance"
    again = grade.fn(made, GradeParams(tone=0.1))
    later = stated(again)
    assert later.pop("History").startswith(found.pop("History"))
    assert later == found


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_iptc_goes_on_in_jpeg_and_png(brought, kind):
    made = enhance.fn(brought(picture(kind)), EnhanceParams(quality_preset="low"))
    path = current_store().fetch(made)
    assert foreign_in(path, path.read_bytes()).iptc == IPTC


def test_a_comment_goes_on(brought):
    source = brought(picture("JPEG"))
    made = enhance.fn(source, EnhanceParams(quality_preset="low"))
    with Image.open(io.BytesIO(current_store().read(made))) as image:
        assert image.info["comment"] == b"seen from the pier"
    with Image.open(
        io.BytesIO(current_store().read(grade.fn(source, GradeParams(tone=0.1))))
    ) as png:
        assert png.info["Comment"] == "seen from the pier"


@pytest.mark.parametrize("packet", [b"<x:xmpmeta", b"<!DOCTYPE x><x/>", b"\xff\xfe\x00"])
def test_damaged_xmp_is_noted_and_refuses_nothing(brought, packet):
    made = grade.fn(brought(picture("JPEG", packet)), GradeParams(tone=0.1))
    assert any("XMP that is damaged" in str(text) for text in made.metadata["notes"])


def test_properties_of_nobody_are_none():
    assert properties_in(b"<a/>") == []
    assert properties_in(b"not XML") is None
