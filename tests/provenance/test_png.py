import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from safelight.engines.machine.measure import measured
from safelight.provenance import png
from safelight.provenance.png import png_bytes


def decoded(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.mode == "RGB"
        return np.array(image)


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], 8
    while place < len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        kind, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        (checksum,) = struct.unpack(">I", data[place + 8 + size : place + 12 + size])
        assert checksum == zlib.crc32(kind + content)
        found.append((kind, content))
        place += 12 + size
    return found


@settings(max_examples=60, deadline=None)
@given(
    pixels=arrays.arrays(
        np.uint8,
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)),
        elements=st.sampled_from([0, 1, 127, 128, 254, 255]),
    ),
    strip=st.integers(1, 60),
)
def test_any_pixels_come_back_however_they_are_cut(pixels, strip):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png, "STRIP_BYTES", strip)
        assert np.array_equal(decoded(png_bytes(pixels, [])), pixels)


def test_strips_do_not_show_in_the_pixels_of_a_photograph(photo, monkeypatch):
    whole = png_bytes(photo, [])
    monkeypatch.setattr(png, "STRIP_BYTES", 10_000)
    cut = png_bytes(photo, [])
    assert len(chunks(cut)) > len(chunks(whole))
    for data in (whole, cut):
        assert np.array_equal(decoded(data), photo)


def test_it_is_no_larger_than_what_pillow_writes(photo):
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "PNG", compress_level=png.COMPRESS_LEVEL)
    assert len(png_bytes(photo, [])) < 1.05 * len(buffer.getvalue())


def test_a_view_is_written_as_it_looks(photo):
    turned = np.rot90(photo)[::2, 5:50]
    assert np.array_equal(decoded(png_bytes(turned, [])), turned)


def test_chunks_stand_in_the_order_the_format_asks_for():
    texts = [("parameters", "café"), ("note", "雪"), ("XML:com.adobe.xmp", "<x/>")]
    found = chunks(png_bytes(np.zeros((2, 2, 3), np.uint8), texts))
    kinds = [kind for kind, _ in found]
    assert kinds[:5] == [b"IHDR", b"sRGB", b"tEXt", b"iTXt", b"iTXt"]
    assert set(kinds[5:-1]) == {b"IDAT"}
    assert kinds[-1] == b"IEND"
    assert found[2][1] == b"parameters\0caf\xe9"
    assert found[3][1] == b"note\0\0\0\0\0" + "雪".encode()


def test_a_large_picture_costs_no_second_copy():
    flat = np.zeros((6000, 8000, 3), np.uint8)  # 137 MiB that pack to almost nothing
    flat[:] = 90
    with measured() as before:
        pass
    with measured() as cost:
        png_bytes(flat, [])
    assert cost.peak_bytes - before.peak_bytes < flat.nbytes / 2
