"""Decoding pictures, and refusing what is not one."""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from safelight.errors import InvalidMediaError
from safelight.settings import MEGAPIXEL, settings

MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
"""Pillow's format names of the pictures that are taken."""


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode PNG, JPEG or WebP bytes, turned upright, transparency laid on white.

    Returns:
        (H, W, 3) uint8 sRGB.

    Raises:
        InvalidMediaError: not such a picture, truncated, or larger than the limit.
    """
    inspect_image(data)
    try:
        with Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                rgba = upright.convert("RGBA")
                white = Image.new("RGBA", rgba.size, "white")
                upright = Image.alpha_composite(white, rgba)
            return np.array(upright.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise InvalidMediaError(
            f"the picture breaks off or is damaged: {error}", "export the picture again"
        ) from error


def inspect_image(data: bytes) -> tuple[str, int, int]:
    """Media type, width and height from the header, no pixel decoded.

    Raises:
        InvalidMediaError: empty, not PNG, JPEG or WebP, or larger than the limit.
    """
    if not data:
        raise InvalidMediaError("the picture file is empty (0 bytes)", "upload the picture again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=tuple(MEDIA_TYPES)) as image:
                found, (width, height) = str(image.format), image.size
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
        raise InvalidMediaError(
            f"found bytes that start with {data[:8]!r}, expected a PNG, JPEG or WebP picture",
            "convert the file to PNG, JPEG or WebP",
        ) from error
    limit = settings().max_input_megapixels
    if width * height > limit * MEGAPIXEL:
        raise InvalidMediaError(
            f"the picture is {width}x{height} px, {width * height / MEGAPIXEL:.1f} megapixels; "
            f"at most {limit} are taken",
            "scale it down, or raise SAFELIGHT_MAX_INPUT_MEGAPIXELS",
        )
    return MEDIA_TYPES[found], width, height


def to_float(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """8-bit values to 0..1; the one place where this is done."""
    return pixels.astype(np.float32) / np.float32(255)


def to_uint8(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """0..1 to 8-bit values, rounded to the nearest; values outside are cut off."""
    return rounded(values * np.float32(255))


def rounded(levels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """8-bit levels that were computed as floats, rounded to the nearest and cut off at the ends."""
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
