"""Pictures of every kind that people bring, against values computed here."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from safelight.errors import InvalidMediaError
from safelight.media.images import decode_image, inspect_image, to_float, to_uint8

SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
WIDE = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
"""Primaries of sRGB, Adobe RGB (1998) and Display P3: X, Y, Z of red, green and blue under D50."""
ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png16(values: np.ndarray, chunks: bytes = b"") -> bytes:
    """A 16-bit PNG, written here because Pillow writes only grey ones."""
    height, width, channels = values.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunks
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def icc(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC version 2 profile of a display."""
    tags = {b"desc": text(b"test"), b"cprt": b"text\0\0\0\0none\0\0\0\0", **tags}
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    head = struct.pack(
        ">I4sI4s4s4s12x4s", 0, b"\0\0\0\0", 0x02100000, b"mntr", space, b"XYZ ", b"acsp"
    )
    head = head.ljust(68, b"\0") + xyz(0.9642, 1.0, 0.8249)[8:]
    whole = head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


def text(words: bytes) -> bytes:
    return b"desc\0\0\0\0" + struct.pack(">I", len(words) + 1) + words + bytes(79)


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def power(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def colour_profile(primaries, gamma: float) -> bytes:
    red, green, blue = (xyz(*primary) for primary in primaries)
    white = xyz(0.9642, 1.0, 0.8249)
    curves = {name: power(gamma) for name in (b"rTRC", b"gTRC", b"bTRC")}
    return icc(b"RGB ", {b"wtpt": white, b"rXYZ": red, b"gXYZ": green, b"bXYZ": blue, **curves})


def grey_profile(gamma: float) -> bytes:
    return icc(b"GRAY", {b"wtpt": xyz(0.9642, 1.0, 0.8249), b"kTRC": power(gamma)})


def srgb_from(pixels: np.ndarray, primaries, gamma: float) -> np.ndarray:
    """What a colour-managed viewer shows, 0..255."""
    light = (pixels / 255.0) ** gamma @ np.array(primaries) @ np.linalg.inv(np.array(SRGB))
    return srgb_encoded(light)


def srgb_encoded(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def assert_levels_close(found: np.ndarray, expected: np.ndarray, worst: float) -> None:
    assert found.shape == expected.shape
    assert found.dtype == np.uint8
    off = np.abs(found.astype(float) - expected)
    assert off.max() <= worst, f"off by {off.max()} at {np.unravel_index(off.argmax(), off.shape)}"


def as_rgb(values: np.ndarray) -> np.ndarray:
    return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values


@pytest.fixture
def small(photo: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(photo[60:124, 190:270])


@pytest.fixture
def deep() -> np.ndarray:
    """(256, 256, 1) with every 16-bit value once."""
    return np.arange(65536, dtype=np.uint32).reshape(256, 256, 1)


# plain pictures


@pytest.mark.parametrize(
    ("kind", "options", "worst"),
    [
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 100}, 30),
        ("JPEG", {"quality": 100, "subsampling": 0}, 5),
        ("JPEG", {"quality": 100, "subsampling": 0, "progressive": True}, 5),
    ],
)
def test_plain_pictures_come_out_as_they_are(small, kind, options, worst):
    data = encoded(Image.fromarray(small), kind, **options)
    assert_levels_close(decode_image(data), small, worst)
    assert inspect_image(data) == (f"image/{kind.lower()}", 80, 64)


def test_grey_palette_and_black_and_white(small):
    grey = Image.fromarray(small).convert("L")
    assert_levels_close(decode_image(encoded(grey)), np.array(grey.convert("RGB")), 0)
    palette = Image.fromarray(small).quantize(16)
    assert_levels_close(decode_image(encoded(palette)), np.array(palette.convert("RGB")), 0)
    bits = grey.convert("1")
    assert_levels_close(decode_image(encoded(bits)), np.array(bits.convert("RGB")), 0)


def test_floats_and_levels_are_each_others_inverse():
    levels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_uint8(to_float(levels)), levels)
    assert to_uint8(np.array([-1, 0.49 / 255, 0.51 / 255, 2], np.float32)).tolist() == [
        0,
        0,
        1,
        255,
    ]


# 16 bits


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_rounded_not_cut(deep, channels):
    values = np.concatenate([deep, deep[::-1], deep[:, ::-1]], axis=2)[..., :channels]
    found = decode_image(png16(values))
    assert_levels_close(found, as_rgb(np.floor(values * 255 / 65535 + 0.5)), 0)


@pytest.mark.parametrize("channels", [2, 4])
def test_sixteen_bits_with_transparency(deep, channels):
    values = np.concatenate([deep, deep[::-1], deep[:, ::-1], deep.transpose(1, 0, 2)], axis=2)
    values = values[..., [*range(channels - 1), 3]]
    alpha = values[..., -1:] / 65535
    expected = as_rgb(values[..., :-1]) / 257 * alpha + 255 * (1 - alpha)
    worst = 1.6 if channels == 4 else 2.5  # grey ones with transparency are cut, not rounded
    assert_levels_close(decode_image(png16(values)), expected, worst)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_with_one_transparent_value(channels):
    values = np.zeros((2, 2, channels), np.uint32)
    values[0, 0], values[0, 1] = 30000, 30001
    keyed = chunk(b"tRNS", struct.pack(">H", 30000) * channels)
    found = decode_image(png16(values, keyed))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[0, 1].tolist() == [117, 117, 117]


def test_sixteen_bits_with_profile_and_orientation(deep):
    values = np.repeat(deep[:, :128], 3, axis=2)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    chunks = chunk(b"iCCP", b"p\0\0" + zlib.compress(colour_profile(ADOBE, 1.8)))
    chunks += chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    expected = np.rot90(srgb_from(values / 257, ADOBE, 1.8), -1)
    assert_levels_close(decode_image(png16(values, chunks)), expected, 2)


# colour profiles


@pytest.mark.parametrize("primaries", [ADOBE, WIDE], ids=["Adobe RGB", "Display P3"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_colour_profile_is_applied(small, primaries, kind):
    profile = colour_profile(primaries, 2.2)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    found = decode_image(encoded(Image.fromarray(small), kind, icc_profile=profile, **options))
    expected = srgb_from(small, primaries, 2.2)
    assert_levels_close(found, expected, 2)
    assert np.abs(expected - small).max() > 8, "without the profile it looks otherwise"


def test_a_srgb_profile_changes_nothing(small):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = decode_image(encoded(Image.fromarray(small), icc_profile=profile))
    assert_levels_close(found, small, 1)


@pytest.mark.parametrize("mode", ["L", "LA", "L with a profile of colours", "P"])
def test_a_profile_of_pictures_that_are_not_rgb(small, mode):
    image = Image.fromarray(small)
    if mode not in ("L", "LA"):
        image = image.quantize(32) if mode == "P" else image.convert("L")
        profile = colour_profile(ADOBE, 1.8)
        expected = srgb_from(np.array(image.convert("RGB")), ADOBE, 1.8)
    else:
        image = image.convert("L").convert(mode)
        profile = grey_profile(1.8)
        grey = np.array(image.convert("L"))[..., None]
        expected = np.repeat(srgb_encoded((grey / 255.0) ** 1.8), 3, axis=2)
    assert_levels_close(decode_image(encoded(image, icc_profile=profile)), expected, 2)


def test_a_profile_keeps_transparency(small):
    alpha = np.full((*small.shape[:2], 1), 255, np.uint8)
    alpha[:, :40] = 0
    profile = colour_profile(WIDE, 2.2)
    image = Image.fromarray(np.concatenate([small, alpha], axis=2))
    found = decode_image(encoded(image, icc_profile=profile))
    assert (found[:, :40] == 255).all()
    assert_levels_close(found[:, 40:], srgb_from(small, WIDE, 2.2)[:, 40:], 2)


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_a_profile_keeps_the_one_transparent_colour(mode):
    levels = np.full((4, 4), 200, np.uint8)
    levels[0] = 10
    image, key = Image.fromarray(levels), 10
    if mode == "RGB":
        image, key = image.convert("RGB"), (10, 10, 10)
    elif mode == "P":
        image = image.convert("P")
    profile = grey_profile(2.2) if mode == "L" else colour_profile(ADOBE, 2.2)
    found = decode_image(encoded(image, transparency=key, icc_profile=profile))
    assert (found[0] == 255).all()
    assert (found[1:] < 210).all()


@pytest.mark.parametrize("profile", [b"no profile", colour_profile(ADOBE, 2.2)[:200], b"\0" * 400])
def test_a_broken_profile_is_left_aside(small, profile):
    found = decode_image(encoded(Image.fromarray(small), icc_profile=profile))
    assert_levels_close(found, small, 0)


def test_a_profile_of_another_mode_is_left_aside(small):
    found = decode_image(encoded(Image.fromarray(small), icc_profile=grey_profile(1.8)))
    assert_levels_close(found, small, 0)


# CMYK


@pytest.mark.parametrize(
    "profile", [None, colour_profile(ADOBE, 2.2)], ids=["bare", "wrong profile"]
)
def test_a_printers_jpeg_has_its_colours(profile):
    colours = np.zeros((16, 64, 3), np.uint8)
    for index, colour in enumerate([(255, 0, 0), (0, 255, 0), (255, 255, 255), (20, 20, 20)]):
        colours[:, index * 16 : index * 16 + 16] = colour
    image = Image.fromarray(colours).convert("CMYK")
    options = {"icc_profile": profile} if profile else {}
    found = decode_image(encoded(image, "JPEG", quality=100, **options))
    assert_levels_close(found, colours, 4)


# orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("profile", [None, colour_profile(SRGB, 2.2)], ids=["bare", "profile"])
def test_pictures_are_turned_upright(small, orientation, profile):
    """Cameras and telephones write both a profile and the way they were held."""
    turned = {
        1: small,
        2: small[:, ::-1],
        3: small[::-1, ::-1],
        4: small[::-1],
        5: small.transpose(1, 0, 2),
        6: np.rot90(small, -1),
        7: small[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(small),
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"exif": exif, **({"icc_profile": profile} if profile else {})}
    data = encoded(Image.fromarray(small), "JPEG", quality=100, subsampling=0, **options)
    expected = srgb_from(turned, SRGB, 2.2) if profile else turned
    assert_levels_close(decode_image(data), expected, 9 if profile else 5)


# transparency


def test_transparency_lies_on_white():
    pixels = np.zeros((1, 4, 4), np.uint8)
    pixels[0] = [(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128), (10, 20, 30, 255)]
    expected = [[255, 0, 0], [255, 255, 255], [127, 127, 127], [10, 20, 30]]
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True})):
        found = decode_image(encoded(Image.fromarray(pixels), kind, **options))
        assert found[0].tolist() == expected


# what is no picture


@pytest.mark.parametrize("profile", [None, colour_profile(ADOBE, 2.2)], ids=["bare", "profile"])
def test_broken_pictures_are_refused(small, profile):
    for kind in ("PNG", "JPEG", "WEBP"):
        options = {"icc_profile": profile} if profile else {}
        whole = encoded(Image.fromarray(small), kind, **options)
        for size in (len(whole) // 2, len(whole) - 40, 60):
            with pytest.raises(InvalidMediaError, match=r"breaks off|damaged|expected a PNG"):
                decode_image(whole[:size])


def test_a_flipped_bit_is_refused_or_seen(small):
    """PNG has check sums; nothing but our error may come out of a damaged file."""
    whole = encoded(Image.fromarray(small))
    draw = np.random.default_rng(1)
    for place in draw.integers(8, len(whole), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(draw.integers(8))
        try:
            found = decode_image(bytes(damaged), 1)
        except InvalidMediaError:
            continue
        assert_levels_close(found, small, 0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_noise_in_a_file_raises_nothing_but_our_error(small, kind):
    whole = encoded(Image.fromarray(small), kind)
    draw = np.random.default_rng(2)
    for _ in range(60):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[draw.integers(0, len(damaged), 6)] = draw.integers(0, 256, 6)
        try:
            found = decode_image(damaged.tobytes(), 1)
        except InvalidMediaError:
            continue
        assert found.dtype == np.uint8


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty \\(0 bytes\\)"),
        (b"just text, called .png", "'just text, calle', expected a PNG, JPEG, WebP, GIF, TIFF"),
        (b"GIF89a" + bytes(100), "expected a PNG|damaged|head"),
        (b"BM" + bytes(100), "expected a PNG|damaged|head"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "expected a PNG, JPEG, WebP, GIF, TIFF"),
        (b"\x89PNG\r\n\x1a\n", "expected a PNG|damaged"),
        (b"\xff\xd8\xff", "expected a PNG|damaged"),
        (b"RIFF\0\0\0\0WEBP", "expected a PNG|damaged"),
    ],
)
def test_what_is_no_picture_is_named(data, message):
    for look in (inspect_image, decode_image):
        with pytest.raises(InvalidMediaError, match=message):
            look(data)


def test_too_many_pixels_are_refused_before_they_are_decoded():
    head = struct.pack(">IIBBBBB", 10_000, 10_001, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    assert inspect_image(data) == ("image/png", 10_000, 10_001)
    for look in (inspect_image, decode_image):
        with pytest.raises(
            InvalidMediaError, match=r"10000x10001 px, 100\.0 megapixels; at most 67"
        ):
            look(data, 67.2)


def test_a_text_that_unpacks_to_gigabytes_is_not_read(small):
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a" * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
    data = encoded(Image.fromarray(small), pnginfo=info)
    assert len(data) < 100_000
    assert_levels_close(decode_image(data), small, 0)
