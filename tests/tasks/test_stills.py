"""Pictures of people: what belongs to them stays, and what no pixel needs never refuses them."""

import io
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from safelight.errors import DependencyMissingError, InvalidMediaError
from safelight.media.images import decode_still
from safelight.media.jpeg_segments import MOST_SCANS
from safelight.media.layers import joined, split
from safelight.media.still_formats import open_plugin
from safelight.store.inputs import keep_media
from safelight.store.store import current_store
from tasks.denoise import DenoiseParams, denoise
from tasks.enhance import EnhanceParams, enhance


def written(image: Image.Image, kind: str, **options) -> bytes:
    open_plugin({"HEIF": "HEIF", "JXL": "JXL"}.get(kind, ""))
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes, wrong: int = 0) -> bytes:
    check = zlib.crc32(name + data) ^ wrong
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)


def with_chunk(png: bytes, *chunks: bytes) -> bytes:
    return png[:33] + b"".join(chunks) + png[33:]


@pytest.fixture
def small(photo: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(photo[60:92, 190:230])


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF", "JXL"])
def test_every_format_opens(small, kind):
    options = {"lossless": True} if kind in ("WEBP", "JXL") else {}
    still = decode_still(written(Image.fromarray(small), kind, **options), 1)
    assert still.pixels.shape == small.shape
    assert np.abs(still.pixels.astype(int) - small).mean() < 12


@pytest.mark.parametrize(
    ("kind", "module", "package"),
    [("JXL", "pillow_jxl", "pillow-jxl-plugin"), ("HEIF", "pillow_heif", "pillow-heif")],
)
def test_a_reader_that_is_not_installed_is_named(small, monkeypatch, kind, module, package):
    picture = written(Image.fromarray(small), kind)
    monkeypatch.setitem(sys.modules, module, None)  # as if it could not be imported
    with pytest.raises(DependencyMissingError, match=package):
        decode_still(picture, 1)


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"eXIf", b"no EXIF at all"),
        chunk(b"tEXt", b"workflow\0{}", wrong=1),
        chunk(b"gAMA", struct.pack(">I", 50_000), wrong=9),
        chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(9 * 2**20))),
        chunk(b"cHRM", bytes(32)),
    ],
)
def test_what_only_describes_a_png_never_refuses_it(small, extra):
    still = decode_still(with_chunk(written(Image.fromarray(small), "PNG"), extra))
    assert np.array_equal(still.pixels, small)
    assert still.left_aside


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_marker_is_whole_and_a_shorter_one_is_not(small, progressive):
    data = written(Image.fromarray(small), "JPEG", quality=95, progressive=progressive)
    still = decode_still(data[:-2])
    assert np.array_equal(still.pixels, decode_still(data).pixels)
    assert any("end marker" in text for text in still.left_aside)
    with pytest.raises(InvalidMediaError, match="breaks off"):
        decode_still(data[: len(data) * 3 // 4])


def test_a_jpeg_with_bytes_that_fill_up_before_its_markers_is_the_same(small):
    data = written(Image.fromarray(small), "JPEG", quality=90, comment=b"hello")
    filled, place = data[:2], 2
    while data[place + 1] != 0xDA:
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        filled, place = filled + b"\xff\xff" + data[place:end], end
    filled += b"\xff" + data[place:-2] + b"\xff\xff\xff" + data[-2:]
    assert np.array_equal(decode_still(filled).pixels, decode_still(data).pixels)


def test_a_jpeg_with_a_second_picture_is_its_first(small):
    first, second = Image.fromarray(small), Image.fromarray(small[::-1].copy())
    data = written(first, "MPO", save_all=True, append_images=[second])
    still = decode_still(data)
    assert np.abs(still.pixels.astype(int) - small).mean() < 12
    assert any("further pictures" in text for text in still.left_aside)


def test_a_jpeg_of_very_many_scans_is_refused(small):
    data = written(Image.fromarray(small), "JPEG", progressive=True)
    scan = data.rindex(b"\xff\xda")
    many = data[:scan] + data[scan:-2] * (MOST_SCANS + 1) + data[-2:]
    with pytest.raises(InvalidMediaError, match="scans"):
        decode_still(many)


def test_a_file_out_of_proportion_is_refused_before_it_is_read(small, tmp_path, volume):
    path = tmp_path / "large.png"
    path.write_bytes(written(Image.fromarray(small), "PNG"))
    with path.open("r+b") as file:
        file.truncate(3 * 2**30)  # sparse
    with pytest.raises(InvalidMediaError, match=r"large\.png.* MiB"):
        keep_media(path, ("image",))


def test_declared_gamma_and_primaries_are_applied(small):
    light = np.arange(256) / 255
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    linear = chunk(b"gAMA", struct.pack(">I", 100_000))
    data = written(Image.fromarray(small), "PNG")
    found = decode_still(with_chunk(data, linear)).pixels
    assert np.abs(found - expected[small]).max() <= 0.51
    srgb = chunk(b"sRGB", b"\0")
    assert np.array_equal(decode_still(with_chunk(data, srgb, linear)).pixels, small)
    coded = chunk(b"cICP", bytes((1, 8, 0, 1)))
    assert np.array_equal(decode_still(with_chunk(data, coded, srgb)).pixels, found)


def test_transparency_greyness_and_metadata_go_through_a_stage(small, tmp_path, volume):
    grey = np.repeat(small.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    alpha = np.zeros((*small.shape[:2], 1), np.uint8)
    alpha[8:24, 8:30] = 255
    exif = Image.Exif()
    exif[0x0112], exif[0x8298] = 1, "(c) North"
    exif[0x8769] = {0x9003: "2019:07:21 14:03:22"}
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 0.0)}
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", '{"nodes": []}')
    path = tmp_path / "sticker.png"
    image = Image.fromarray(np.dstack((grey, alpha)))
    path.write_bytes(written(image, "PNG", exif=exif, pnginfo=info, dpi=(300, 300)))
    made = denoise.fn(keep_media(path, ("image",)), DenoiseParams(level=0.3))
    with Image.open(io.BytesIO(current_store().read(made))) as result:
        pixels, found = np.asarray(result), result.getexif()
        assert result.info["workflow"] == '{"nodes": []}'
        assert round(result.info["dpi"][0]) == 300
    assert np.array_equal(pixels[..., 3:], alpha)
    assert np.array_equal(pixels[..., 0], pixels[..., 2])
    assert found[0x8298] == "(c) North"
    assert found.get_ifd(0x8769)[0x9003] == "2019:07:21 14:03:22"
    assert found.get_ifd(0x8825)[1] == "N"


def test_what_a_picture_loses_on_the_way_is_noted(small, tmp_path, volume):
    pages = [Image.fromarray(np.roll(small, at, axis=1)) for at in range(3)]
    deep = Image.fromarray(small[..., 0].astype(np.uint16) * 257)
    for data, told in (
        (written(pages[0], "TIFF", save_all=True, append_images=pages[1:]), "first of 3 pages"),
        (written(deep, "PNG"), "steps finer than 8 bits a channel (it has 16)"),
        (written(deep, "TIFF"), "steps finer than 8 bits a channel (it has 16)"),
    ):
        path = tmp_path / "picture"
        path.write_bytes(data)
        made = denoise.fn(keep_media(path, ("image",)), DenoiseParams(level=0.3))
        assert any(told in str(text) for text in made.metadata["notes"])


@pytest.mark.parametrize(
    ("kind", "extra", "told"),
    [
        ("JPEG", b"\xff\xff\xff\xff" + bytes(range(50)), "EXIF that is damaged"),
        ("JPEG", struct.pack(">IH", 8, 3) + b"\x01\x12\0\3\0", "EXIF that is damaged"),
        ("PNG", chunk(b"tEXt", b"Comment\0hello", wrong=1), "the chunk tEXt with a wrong checksum"),
    ],
)
def test_damaged_metadata_is_noted_once(small, tmp_path, volume, recwarn, kind, extra, told):
    data = written(Image.fromarray(small), kind)
    if kind == "PNG":
        data = with_chunk(data, extra)
    else:
        block = b"Exif\0\0MM\0*" + extra
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    path = tmp_path / "picture"
    path.write_bytes(data)
    made = enhance.fn(keep_media(path, ("image",)), EnhanceParams(quality_preset="low"))
    assert [text for text in made.metadata["notes"] if told in str(text)] == [
        f"left aside of the source: {told}"
    ]
    assert not [each for each in recwarn if "EXIF" in str(each.message)]


def test_what_is_no_picture_is_refused_by_its_name(tmp_path, volume):
    path = tmp_path / "letter.png"
    for content in (b"Dear Sir", b"%PDF-1.4", b"RIFF0000AVI LIST", bytes(range(200, 256))):
        path.write_bytes(content)
        with pytest.raises(InvalidMediaError, match=r"letter\.png: found .*, expected"):
            keep_media(path, ("image",))


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "L"), ("PNG", "LA"), ("JPEG", "L")])
def test_a_grey_file_stays_one(small, tmp_path, volume, kind, mode):
    path = tmp_path / "grey"
    grey = Image.fromarray(small).convert(mode)
    if mode == "LA":
        grey.putalpha(Image.fromarray(small[..., 1]))
    path.write_bytes(written(grey, kind))
    made = enhance.fn(keep_media(path, ("image",)), EnhanceParams(quality_preset="low"))
    with Image.open(io.BytesIO(current_store().read(made))) as result:
        assert result.mode == mode
        assert result.size == (2 * small.shape[1], 2 * small.shape[0])
        larger = np.asarray(result.convert("L").resize(grey.size, Image.Resampling.BOX))
    assert np.abs(larger.astype(int) - np.asarray(grey.convert("L"))).mean() < 6


@pytest.mark.parametrize(("bands", "order"), [(3, "<"), (3, ">"), (4, "<"), (1, "<"), (1, ">")])
@pytest.mark.parametrize("packed", [False, True])
def test_a_tiff_of_16_bits_is_rounded(tmp_path, bands, order, packed):
    values = np.random.default_rng(bands).integers(0, 65536, (6, 5, bands), np.uint16)
    still = decode_still(tiff_of_16_bits(values, order, packed))
    expected = np.rint(values / 257).astype(np.uint8)
    if bands == 1:
        expected = np.repeat(expected, 3, axis=2)
    assert np.array_equal(still.pixels, expected)


def tiff_of_16_bits(values: np.ndarray, order: str, packed: bool) -> bytes:
    height, width, bands = values.shape
    pixels = values.astype(f"{order}u2").tobytes()
    pixels = zlib.compress(pixels) if packed else pixels
    bits = struct.pack(f"{order}{bands}H", *[16] * bands)
    tags = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, bands, bits),
        (259, 3, 1, 8 if packed else 1),
        (262, 3, 1, 2 if bands > 2 else 1), (273, 4, 1, 8), (277, 3, 1, bands), (278, 3, 1, height),
        (279, 4, 1, len(pixels)), *([(338, 3, 1, 2)] if bands == 4 else []),
    ]  # fmt: skip
    place, table = 8 + len(pixels) + len(pixels) % 2, b""
    behind = place + 2 + 12 * len(tags) + 4
    for tag, kind, count, value in tags:
        if isinstance(value, bytes):
            held = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(f"{order}I", behind)
        else:
            held = struct.pack(f"{order}{'H' if kind == 3 else 'I'}", value).ljust(4, b"\0")
        table += struct.pack(f"{order}HHI", tag, kind, count) + held
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, place)
    padded = pixels.ljust(place - 8, b"\0")
    count = struct.pack(f"{order}H", len(tags))
    return head + padded + count + table + struct.pack(f"{order}I", 0) + bits


def test_avif_says_its_colour_in_numbers(small):
    data = written(Image.fromarray(small), "AVIF", quality=100, subsampling="4:4:4")
    place = data.index(b"colrnclx") + 8
    linear = data[:place] + struct.pack(">HH", 1, 8) + data[place + 4 :]
    light = np.arange(256) / 255
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    plain = decode_still(data).pixels
    assert np.abs(decode_still(linear).pixels - expected[plain]).max() <= 0.51
    unknown = data[:place] + struct.pack(">HH", 77, 77) + data[place + 4 :]
    assert any("declared colour" in text for text in decode_still(unknown).left_aside)


def test_what_is_transparent_takes_the_colours_around_it():
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[10:30, 10:30] = (200, 40, 20, 255)
    colours, alpha = split(pixels)
    assert (colours[10:30, 10:30] == (200, 40, 20)).all()
    assert np.abs(colours.astype(int) - (200, 40, 20)).max() <= 8  # rounded where none is seen
    assert np.array_equal(joined(colours, alpha)[..., 3], pixels[..., 3])
