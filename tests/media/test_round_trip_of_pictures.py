"""Pictures that went through: FFmpeg shows the same pixels, ExifTool reads the same tags."""

import io
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from safelight.provenance.record import FileRecord
from safelight.settings import settings
from safelight.store.inputs import keep_media
from safelight.store.store import current_store
from tasks.base.keeping import keep_changed
from tests.media.outside import exactly_seen, needs_exiftool, needs_ffmpeg, shown, tags

WIDTH, HEIGHT = 48, 32
GIVEN = {
    "EXIF:DateTimeOriginal": "2019:07:21 14:03:22",
    "EXIF:Copyright": "(c) North",
    "EXIF:Artist": "A. North",
    "EXIF:GPSLatitude": 48.5,
    "EXIF:GPSLatitudeRef": "N",
}
XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmp:Rating="4"><dc:title><rdf:Alt><rdf:li xml:lang="x-default">Harbour</rdf:li></rdf:Alt>
</dc:title></rdf:Description></rdf:RDF></x:xmpmeta>"""
OFF = 2
"""Levels that any colour may be off."""
COARSER_STEPS = 0.02
"""The part of all values that may be off by more where a JPEG of quality 100 becomes one of 95,
whose waves are rounded to wider steps. The colours of areas stay."""
TURNS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True),
         8: (1, False)}  # fmt: skip
"""From the EXIF orientation to quarter turns against the clock, then a mirror."""


def scene() -> np.ndarray:
    """(H, W, 3): slopes, and corners that all differ."""
    picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    picture[..., 0] = np.linspace(30, 220, WIDTH)
    picture[..., 1] = np.linspace(60, 200, HEIGHT)[:, None]
    picture[..., 2] = 90
    picture[:8, :8] = (200, 30, 30)
    picture[24:, 32:] = (30, 60, 210)
    return picture


def grey() -> np.ndarray:
    return np.repeat(scene()[..., :1], 3, axis=2)


def cover() -> np.ndarray:
    return np.tile(np.linspace(0, 255, HEIGHT).astype(np.uint8)[:, None], (1, WIDTH))


def exif(orientation: int = 1) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x8298], block[0x013B] = GIVEN["EXIF:Copyright"], GIVEN["EXIF:Artist"]
    block[0x8769] = {0x9003: GIVEN["EXIF:DateTimeOriginal"]}
    block[0x8825] = {1: "N", 2: (48.0, 30.0, 0.0)}
    return block


def written(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def chunked(png: bytes, kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return png[:33] + struct.pack(">I", len(content)) + kind + content + check + png[33:]


def deep_png(values: np.ndarray) -> bytes:
    """(H, W, 1 to 4) of 16 bits."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, kind, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n"
    for name, content in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(name + content))
        png += struct.pack(">I", len(content)) + name + content + check
    return png


def encoded(light: np.ndarray) -> np.ndarray:
    """Linear light as sRGB; IEC 61966-2-1."""
    curved = 1.055 * light ** (1 / 2.4) - 0.055
    return 255 * np.where(light <= 0.0031308, 12.92 * light, curved)


def linear_values() -> np.ndarray:
    """What a file of gamma 1 holds, so that the scene is shown."""
    value = scene() / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return np.rint(light * 65535).astype(np.uint16)


def in_profile() -> tuple[np.ndarray, bytes]:
    """The scene in a profile with the channels' order changed, so that leaving it out shows."""
    gamma = struct.pack(">4sIIH", b"curv", 0, 1, round(1.0 * 256)) + b"\0\0"
    columns = {
        b"rXYZ": (0.43607, 0.22249, 0.01392),
        b"gXYZ": (0.38515, 0.71687, 0.09708),
        b"bXYZ": (0.14307, 0.06061, 0.71410),
        b"wtpt": (0.96420, 1.0, 0.82491),
    }
    parts = {
        name: b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(each * 65536) for each in values))
        for name, values in columns.items()
    } | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma)
    parts[b"desc"] = b"desc\0\0\0\0\0\0\0\x07linear\0" + bytes(80)
    parts[b"cprt"] = b"text\0\0\0\0none\0"
    table, body, place = b"", b"", 128 + 4 + 12 * len(parts)
    for name, content in parts.items():
        padded = content + bytes(-len(content) % 4)
        table += struct.pack(">4sII", name, place + len(body), len(content))
        body += padded
    head = struct.pack(">II4s4s4s4s", 0, 0, b"\x02\x40\0\0", b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    profile = head.ljust(128, b"\0") + struct.pack(">I", len(parts)) + table + body
    profile = struct.pack(">I", len(profile)) + profile[4:]
    ImageCms.ImageCmsProfile(io.BytesIO(profile))  # it is one
    return np.rint(linear_values() / 257).astype(np.uint8), profile


@dataclass
class Case:
    """A file, and what is to be seen of it."""

    data: bytes
    frames: list[np.ndarray]
    """(H, W, 3 or 4) of each, as a viewer shows them; of a lossy file about so."""
    off: float = 0
    """How far a level may be off: what rounding costs."""
    lossy: bool = False
    """Whether the file lost something when it was written: what it holds is to be seen then."""
    coarser: bool = False
    """Whether the result is a JPEG with less in it than the source."""
    into: str = "image/png"
    has: dict[str, Any] = field(default_factory=dict)
    """Tags, as ExifTool names them."""


def cases() -> dict[str, Case]:
    see, dim, over = scene(), grey(), cover()[..., None]
    deep = (see.astype(np.uint16) * 257) ^ 0x3F
    moving = [np.dstack((np.roll(see, 6 * at, axis=1), over)) for at in range(3)]
    several = {
        "save_all": True,
        "append_images": [Image.fromarray(frame) for frame in moving[1:]],
        "duration": [40, 80, 120],
    }
    told = {"XMP:Rating": 4, "XMP:Title": "Harbour"}
    info = PngInfo()
    info.add_text("workflow", '{"nodes": []}')
    linear, profile = in_profile()
    gamma = chunked(deep_png(linear_values()), b"gAMA", struct.pack(">I", 100_000))
    seen_through = np.dstack((see, over))
    made = {
        "PNG": Case(written(see, "PNG", dpi=(300, 300)), [see], has={"PNG:PixelsPerUnitX": 11811}),
        "PNG with transparency": Case(written(seen_through, "PNG"), [seen_through]),
        "PNG grey": Case(written(dim[..., 0], "PNG"), [dim], has={"PNG:ColorType": 0}),
        "PNG grey, transparent": Case(
            written(np.dstack((dim[..., :1], over)), "PNG"),
            [np.dstack((dim, over))],
            has={"PNG:ColorType": 4},
        ),
        "PNG of 16 bits": Case(deep_png(deep), [see], 0.51),
        "PNG of 16 bits, grey": Case(deep_png(deep[..., :1]), [dim], 0.51),
        "PNG of 16 bits, transparent": Case(
            deep_png(np.dstack((deep, over.astype(np.uint16) * 257))), [seen_through], 0.51
        ),
        "PNG of gamma 1": Case(gamma, [see], 1),
        "PNG with EXIF and text": Case(
            written(see, "PNG", exif=exif(), pnginfo=info),
            [see],
            has=GIVEN | {"PNG:Workflow": '{"nodes": []}'},
        ),
        "PNG with a profile": Case(
            written(linear, "PNG", icc_profile=profile), [encoded(linear / 255)], 1
        ),
        "JPEG": Case(written(see, "JPEG", quality=100, subsampling=0), [see], OFF, True),
        "JPEG made coarser": Case(
            written(see, "JPEG", quality=100, subsampling=0, exif=exif(), xmp=XMP, dpi=(240, 240)),
            [see],
            OFF,
            True,
            True,
            "image/jpeg",
            GIVEN | told | {"JFIF:XResolution": 240},
        ),
        "JPEG of quality 95": Case(
            written(see, "JPEG", quality=95, subsampling=0), [see], OFF, True, into="image/jpeg"
        ),
        "JPEG of half the colours": Case(
            written(see, "JPEG", quality=90, subsampling=2), [see], OFF, True
        ),
        "JPEG grey": Case(
            written(dim[..., 0], "JPEG", quality=100),
            [dim],
            OFF,
            True,
            into="image/jpeg",
            has={"File:ColorComponents": 1},
        ),
        "WebP": Case(
            written(seen_through, "WEBP", lossless=True, exact=True, exif=exif(), xmp=XMP),
            [seen_through],
            into="image/webp",
            has=GIVEN | told,
        ),
        "TIFF": Case(
            written(see, "TIFF", dpi=(300, 300)), [see], has={"PNG:PixelsPerUnitX": 11811}
        ),
        "BMP": Case(written(see, "BMP"), [see]),
        "AVIF": Case(
            written(see, "AVIF", quality=100, subsampling="4:4:4", exif=exif(), xmp=XMP),
            [see],
            OFF,
            True,
            has=GIVEN | told,
        ),
        "AVIF of limited range": Case(
            written(see, "AVIF", quality=90, subsampling="4:4:4", range="limited"), [see], OFF, True
        ),
        "AVIF of half the colours": Case(
            written(see, "AVIF", quality=90, subsampling="4:2:0"), [see], OFF, True
        ),
        "WebP of half the colours": Case(
            written(see, "WEBP", quality=90), [see], OFF, True, into="image/webp"
        ),
        "animated PNG": Case(written(moving[0], "PNG", **several), moving),
        "animated WebP": Case(
            written(moving[0], "WEBP", lossless=True, exact=True, **several), moving
        ),
        "animated GIF": Case(
            written(
                np.full((HEIGHT, WIDTH, 3), 40, np.uint8),
                "GIF",
                duration=[40, 80],
                save_all=True,
                append_images=[Image.new("RGB", (WIDTH, HEIGHT), (200, 40, 90))],
            ),
            [np.full((HEIGHT, WIDTH, 3), 40), np.tile([200, 40, 90], (HEIGHT, WIDTH, 1))],
        ),
    }
    for orientation, (quarters, mirrored) in TURNS.items():
        upright = np.rot90(see, quarters)
        made[f"JPEG turned {orientation}"] = Case(
            written(see, "JPEG", quality=95, subsampling=0, exif=exif(orientation)),
            [upright[:, ::-1] if mirrored else upright],
            OFF,
            True,
            into="image/jpeg",
            has=GIVEN,
        )
    return made


CASES = cases()


def areas(frame: np.ndarray) -> np.ndarray:
    """Means of 16 by 16 pixels: their colour, whatever a decoder's filter does at an edge."""
    height, width = frame.shape[:2]
    return frame[..., :3].reshape(height // 16, 16, width // 16, 16, 3).mean(axis=(1, 3))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each of them after a stage that changes nothing; the sources lie beside."""
    folder = tmp_path_factory.mktemp("round")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("VOLUME_ROOT", str(folder / "volume"))
        settings.cache_clear()
        current_store.cache_clear()
        found: dict[str, Path] = {}
        for number, (name, case) in enumerate(CASES.items()):
            source = folder / f"{number}.source"
            source.write_bytes(case.data)
            ref = keep_media(source, ("image",))
            record = FileRecord(stage="grade", parameters={}, sources=(ref.sha256,))
            made = keep_changed(ref, record, lambda frames: frames, case.into)
            found[name] = folder / f"{number}{made.extension}"
            found[name].write_bytes(current_store().read(made))
    settings.cache_clear()
    current_store.cache_clear()
    return found


@needs_ffmpeg
@pytest.mark.parametrize("name", CASES)
def test_the_same_is_seen(results: dict[str, Path], name: str) -> None:
    case, path = CASES[name], results[name]
    height, width, _ = case.frames[0].shape
    if path.suffix == ".webp" and len(case.frames) > 1:
        pytest.skip("FFmpeg does not decode animated WebP")
    jpeg = path.suffix == ".jpg"
    found = [exactly_seen(path, width, height)] if jpeg else shown(path, width, height, "rgba")
    assert len(found) == len(case.frames)
    wanted = case.frames
    if case.lossy:
        wanted = [exactly_seen(path.with_suffix(".source"), width, height)]
        assert np.abs(areas(wanted[0]) - areas(case.frames[0])).max() <= 4  # it is the scene
    for frame, expected in zip(found, wanted, strict=True):
        assert np.abs(areas(frame) - areas(expected)).max() <= 1
        off = np.abs(frame[..., :3] - expected[..., :3])
        if expected.shape[2] == 4:
            assert np.array_equal(frame[..., 3], expected[..., 3])
            off = off[expected[..., 3] > 0]
        elif not jpeg:
            assert frame[..., 3].min() == 255
        assert (off > case.off).mean() <= COARSER_STEPS * case.coarser
        assert off.mean() <= 0.6


@needs_exiftool
def test_the_same_tags_are_read(results: dict[str, Path]) -> None:
    found = tags(results.values())
    for name, path in results.items():
        said = found[path.name]
        assert {tag: said.get(tag) for tag in CASES[name].has} == CASES[name].has, name
        assert said.get("EXIF:Orientation", 1) == 1, name
        height, width, _ = CASES[name].frames[0].shape
        assert said["Composite:ImageSize"] == f"{width} {height}", name
        assert not said.get("ExifTool:Error"), name
        assert not said.get("ExifTool:Warning"), name


@needs_exiftool
def test_animations_have_as_many_frames(results: dict[str, Path]) -> None:
    found = tags(results.values())
    for name in ("animated PNG", "animated GIF"):
        assert found[results[name].name]["PNG:AnimationFrames"] == len(CASES[name].frames)
