"""Decoding pictures, and refusing what is not one."""

import io
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from safelight.errors import InvalidMediaError
from safelight.media.jpeg_segments import jpeg_parts, require_all_scans
from safelight.media.layers import on_white
from safelight.media.png_chunks import png_parts
from safelight.media.samples import shown
from safelight.media.still_formats import (
    ANIMATED,
    HEAD,
    MEDIA_TYPES,
    NAMES,
    jxl_size,
    open_plugin,
    other_kind,
    still_format,
)
from safelight.media.still_source import ask_plugin, damage_named, taken_apart
from safelight.settings import MEGAPIXEL

Image.MAX_IMAGE_PIXELS = None  # `max_megapixels` is asked before any pixel is decoded


@dataclass(frozen=True)
class Still:
    """One decoded picture."""

    pixels: NDArray[np.uint8]
    """(H, W, 3) uint8 sRGB, or (H, W, 4) where some of it is transparent."""
    left_aside: tuple[str, ...] = ()
    """What of the file was not taken, for people to read."""
    animated: bool = False
    """Whether these pixels are the first of several frames."""


def decode_image(data: bytes, max_megapixels: float | None = None) -> NDArray[np.uint8]:
    """As `decode_still`, transparency laid on white: (H, W, 3) uint8 sRGB.

    Raises:
        InvalidMediaError: not such a picture, truncated, or larger than the limit.
    """
    return on_white(decode_still(data, max_megapixels).pixels)


def decode_still(data: bytes, max_megapixels: float | None = None) -> Still:
    """Decode a still picture, turned upright, in sRGB.

    Colour is taken from cICP, a profile, or gamma and primaries, in this order; 16-bit values are
    rounded to 8 bits. Metadata that is damaged is left aside, and of several pictures all but the
    first; `safelight.media.animation` reads the frames of an animated one.

    Args:
        data: the whole file.
        max_megapixels: see `inspect_image`.

    Raises:
        InvalidMediaError: not such a picture, truncated, or larger than the limit.
    """
    inspect_image(data, max_megapixels)
    left_aside: list[str] = []
    with damage_named("the picture breaks off or is damaged"):
        source = taken_apart(data, left_aside)
        if not source.whole:
            require_all_scans(source.data)
        with Image.open(io.BytesIO(source.data), formats=(source.found,)) as image:
            ask_plugin(source, image, left_aside)
            pixels = shown(image, source, left_aside)
            animated = source.found in ANIMATED and bool(getattr(image, "is_animated", False))
            count = 1 if source.found in ANIMATED else getattr(image, "n_frames", 1)
            if count > 1:
                kind = "pages" if source.found == "TIFF" else "pictures"
                left_aside.append(f"all but the first of {count} {kind}")
    if source.bits > 8:
        left_aside.append(f"steps finer than 8 bits a channel (it has {source.bits})")
    return Still(pixels, tuple(left_aside), animated or source.frames > 1)


def inspect_image(data: bytes, max_megapixels: float | None = None) -> tuple[str, int, int]:
    """Media type, width and height from the header, no pixel decoded.

    Args:
        data: the file, or its beginning.
        max_megapixels: for what people bring; None takes any size, as our own results may have.

    Raises:
        InvalidMediaError: empty, no still picture, or larger than the limit.
    """
    if not data:
        raise InvalidMediaError("the picture file is empty (0 bytes)", "upload the picture again")
    found = still_format(data[:HEAD])
    if found is None:
        raise InvalidMediaError(
            f"found {other_kind(data[:HEAD])}, expected a {NAMES} picture",
            "convert the file to PNG, JPEG or WebP",
        )
    with damage_named("the head of the picture is damaged"):
        width, height = _size(found, data)
    if max_megapixels is not None and width * height > max_megapixels * MEGAPIXEL:
        raise InvalidMediaError(
            f"the picture is {width}x{height} px, {width * height / MEGAPIXEL:.1f} megapixels; "
            f"at most {max_megapixels} are taken",
            "scale it down, or raise SAFELIGHT_MAX_INPUT_MEGAPIXELS",
        )
    return MEDIA_TYPES[found], width, height


def is_stored_grey(data: bytes) -> bool:
    """Whether a file holds grey values only, with or without transparency.

    Raises:
        InvalidMediaError: not such a picture.
    """
    inspect_image(data)
    found = still_format(data[:HEAD])
    if found == "JXL":
        return False  # its reader says so only after decoding all of it
    if found == "PNG":
        return data[25] in (0, 4)
    head = jpeg_parts(data, head_only=True).pixels if found == "JPEG" else data
    with (
        damage_named("the head of the picture is damaged"),
        Image.open(io.BytesIO(head), formats=(found or "",)) as image,
    ):
        return image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I;16")


@contextmanager
def head_opened(data: bytes) -> Generator[Image.Image]:
    """A picture opened for what its decoder knows before any pixel.

    Raises:
        InvalidMediaError: not such a picture, or of a format that knows nothing before all pixels.
    """
    found = still_format(data[:HEAD])
    if found is None or found == "JXL":
        raise InvalidMediaError("nothing is known before the pixels", "convert it to PNG")
    with damage_named("the head of the picture is damaged"):
        open_plugin(found)
        with Image.open(io.BytesIO(data), formats=(found,)) as image:
            yield image


def metadata_of(data: bytes) -> tuple[bytes | None, int | None]:
    """EXIF block and printing density in dots per metre, as far as the file has them.

    Raises:
        InvalidMediaError: not such a picture.
    """
    inspect_image(data)
    found = still_format(data[:HEAD])
    if found == "PNG":
        parts = png_parts(data)
        return parts.exif, parts.dots_per_metre
    exif = jpeg_parts(data).exif if found == "JPEG" else None
    head = jpeg_parts(data, head_only=True).pixels if found == "JPEG" else data
    with (
        damage_named("the head of the picture is damaged"),
        Image.open(io.BytesIO(head), formats=(found or "",)) as image,
    ):
        if found == "TIFF":
            exif = image.getexif().tobytes()
        block = image.info.get("exif") if exif is None else exif
        dots = image.info.get("dpi", (0, 0))
        known = isinstance(dots, tuple) and dots[0] == dots[1] and 1 < dots[0] < 65_536
        return block, round(float(dots[0]) / 0.0254) if known else None


def _size(found: str, data: bytes) -> tuple[int, int]:
    if found == "JXL":
        return jxl_size(data)
    if found == "PNG":
        data = png_parts(data, head_only=True).pixels
    elif found == "JPEG":
        data = jpeg_parts(data, head_only=True).pixels
    open_plugin(found)
    with Image.open(io.BytesIO(data), formats=(found,)) as image:
        return image.size


def to_float(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """8-bit values to 0..1; the one place where this is done."""
    return pixels.astype(np.float32) / np.float32(255)


def to_uint8(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """0..1 to 8-bit values, rounded to the nearest; values outside are cut off."""
    return rounded(values * np.float32(255))


def rounded(levels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """8-bit levels that were computed as floats, rounded to the nearest and cut off at the ends."""
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
