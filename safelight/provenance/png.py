"""Writes PNG in strips, so that a large picture costs no second copy of its pixels."""

import io
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from safelight.provenance.containers import PNG, XMP_KEYWORD

STRIP_BYTES = 4 * 2**20
"""Pixels filtered at a time."""
COMPRESS_LEVEL = 1
"""The fastest: pictures are written after every stage, and read more often than sent."""
_PERCEPTUAL = b"\0"
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""By the number of channels."""
_WORD = 2**16 - 1


def png_bytes(
    pixels: NDArray[np.uint8],
    texts: Sequence[tuple[str, str]],
    exif: bytes = b"",
    dots_per_metre: int | None = None,
) -> bytes:
    """Encode a picture as sRGB.

    Args:
        pixels: (H, W, channels) uint8: grey, grey with transparency, sRGB, or with transparency.
        texts: keyword and text of each text chunk: tEXt, or iTXt where Latin-1 does not do.
        exif: block without its header, if there is any.
        dots_per_metre: printing density, if it is known.

    Source:
        PNG Specification, third edition, W3C 2025.
    """
    file = io.BytesIO()
    _write_head(file, pixels.shape, texts, exif, dots_per_metre, b"")
    for part in _packed(pixels):
        _write_chunk(file, b"IDAT", part)
    _write_chunk(file, b"IEND", b"")
    return file.getvalue()


def apng_bytes(
    frames: Iterable[NDArray[np.uint8]],
    lasts: Sequence[Fraction],
    plays: int,
    texts: Sequence[tuple[str, str]],
    exif: bytes = b"",
    dots_per_metre: int | None = None,
) -> bytes:
    """Encode an animation; every frame stands for itself.

    Args:
        frames: each as for `png_bytes`, all of one shape; as many as `lasts`.
        lasts: seconds each frame is shown.
        plays: how often all of it is shown; 0 is without end.
        texts: see `png_bytes`.
        exif: see `png_bytes`.
        dots_per_metre: see `png_bytes`.

    Source:
        PNG Specification, third edition, W3C 2025, 11.3.4.
    """
    file, number = io.BytesIO(), 0
    for at, pixels in enumerate(frames):
        height, width, _ = pixels.shape
        if at == 0:
            control = struct.pack(">II", len(lasts), plays)
            _write_head(file, pixels.shape, texts, exif, dots_per_metre, control)
        delay = _delay(lasts[at])
        head = struct.pack(
            ">IIIIIHHBB", number, width, height, 0, 0, delay.numerator, delay.denominator, 0, 0
        )
        _write_chunk(file, b"fcTL", head)
        number += 1
        for part in _packed(pixels):
            if at == 0:
                _write_chunk(file, b"IDAT", part)
            elif part:
                _write_chunk(file, b"fdAT", struct.pack(">I", number) + part)
                number += 1
    _write_chunk(file, b"IEND", b"")
    return file.getvalue()


def _write_head(
    file: io.BytesIO,
    shape: tuple[int, ...],
    texts: Sequence[tuple[str, str]],
    exif: bytes,
    dots_per_metre: int | None,
    control: bytes,
) -> None:
    height, width, channels = shape
    file.write(PNG)
    kind = _COLOUR_TYPES[channels]
    _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
    _write_chunk(file, b"sRGB", _PERCEPTUAL)
    if dots_per_metre is not None:
        _write_chunk(file, b"pHYs", struct.pack(">IIB", dots_per_metre, dots_per_metre, 1))
    if exif:
        _write_chunk(file, b"eXIf", exif)
    for keyword, text in texts:
        _write_chunk(file, *_text_chunk(keyword, text))
    if control:
        _write_chunk(file, b"acTL", control)


def _packed(pixels: NDArray[np.uint8]) -> Iterator[bytes]:
    packer = zlib.compressobj(COMPRESS_LEVEL)
    for strip in _filtered(pixels):
        yield packer.compress(strip.tobytes())
    yield packer.flush()


def _delay(lasts: Fraction) -> Fraction:
    """The nearest that two numbers of 16 bits hold."""
    for finest in (_WORD, _WORD // 100, _WORD // 10_000, 1):
        near = lasts.limit_denominator(finest)
        if near.numerator <= _WORD:
            return near
    return Fraction(_WORD)


def _write_chunk(file: io.BytesIO, kind: bytes, data: bytes) -> None:
    if kind == b"IDAT" and not data:
        return
    file.write(struct.pack(">I", len(data)))
    file.write(kind)
    file.write(data)
    file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def _text_chunk(keyword: str, text: str) -> tuple[bytes, bytes]:
    key = keyword.encode("latin-1") + b"\0"
    if keyword != XMP_KEYWORD:  # XMP is iTXt even where Latin-1 would do
        try:
            return b"tEXt", key + text.encode("latin-1")
        except UnicodeEncodeError:
            pass
    return b"iTXt", key + b"\0\0\0\0" + text.encode("utf-8")


def _filtered(pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Rows with their filter byte; each row has the filter that leaves the smallest differences."""
    height, width, channels = pixels.shape
    rows = max(1, STRIP_BYTES // (channels * width))
    above = np.zeros((1, channels * width), np.uint8)
    for start in range(0, height, rows):
        strip = pixels[start : start + rows].reshape(-1, channels * width)
        up = np.concatenate((above, strip[:-1]))
        left = np.zeros_like(strip)
        left[:, channels:] = strip[:, :-channels]
        mean = (left & up) + (
            (left ^ up) >> np.uint8(1)
        )  # without the overflow of (left + up) // 2
        # PNG's filters 0 to 3, modulo 256 as it wants them; Paeth costs more time than it saves
        choices = (strip, strip - left, strip - up, strip - mean)
        best = np.argmin([_cost(choice) for choice in choices], axis=0)
        lines = np.empty((len(strip), 1 + channels * width), np.uint8)
        lines[:, 0] = best
        for kind, choice in enumerate(choices):
            chosen = best == kind
            lines[chosen, 1:] = choice[chosen]
        yield lines
        above = strip[-1:]


def _cost(differences: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Sum of magnitudes per row, each difference taken as signed."""
    return np.minimum(differences, -differences).sum(axis=1, dtype=np.int64)
