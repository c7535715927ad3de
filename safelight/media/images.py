"""Decoding pictures, and refusing what is not one."""

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from safelight.errors import InvalidMediaError
from safelight.settings import MEGAPIXEL

Image.MAX_IMAGE_PIXELS = None  # `max_megapixels` is asked before any pixel is decoded
MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
"""Pillow's format names of the pictures that are taken."""
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error)
"""What Pillow raises on damaged files."""


def decode_image(data: bytes, max_megapixels: float | None = None) -> NDArray[np.uint8]:
    """Decode PNG, JPEG or WebP bytes, turned upright, transparency laid on white.

    A colour profile is applied, 16-bit values are rounded to 8 bits.

    Args:
        data: the whole file.
        max_megapixels: see `inspect_image`.

    Returns:
        (H, W, 3) uint8 sRGB.

    Raises:
        InvalidMediaError: not such a picture, truncated, or larger than the limit.
    """
    inspect_image(data, max_megapixels)
    try:
        with Image.open(io.BytesIO(data), formats=tuple(MEDIA_TYPES)) as image:
            upright = ImageOps.exif_transpose(_in_srgb(_in_eight_bits(image, data)))
            if upright.has_transparency_data:
                rgba = upright.convert("RGBA")
                white = Image.new("RGBA", rgba.size, "white")
                upright = Image.alpha_composite(white, rgba)
            return np.array(upright.convert("RGB"))
    except _DAMAGE as error:
        raise InvalidMediaError(
            f"the picture breaks off or is damaged: {error}", "export the picture again"
        ) from error


def inspect_image(data: bytes, max_megapixels: float | None = None) -> tuple[str, int, int]:
    """Media type, width and height from the header, no pixel decoded.

    Args:
        data: the file, or its beginning.
        max_megapixels: for what people bring; None takes any size, as our own results may have.

    Raises:
        InvalidMediaError: empty, not PNG, JPEG or WebP, or larger than the limit.
    """
    if not data:
        raise InvalidMediaError("the picture file is empty (0 bytes)", "upload the picture again")
    try:
        with Image.open(io.BytesIO(data), formats=tuple(MEDIA_TYPES)) as image:
            found, (width, height) = str(image.format), image.size
    except UnidentifiedImageError as error:
        raise InvalidMediaError(
            f"found bytes that start with {data[:8]!r}, expected a PNG, JPEG or WebP picture",
            "convert the file to PNG, JPEG or WebP",
        ) from error
    except _DAMAGE as error:
        raise InvalidMediaError(
            f"the head of the picture is damaged: {error}", "export the picture again"
        ) from error
    if max_megapixels is not None and width * height > max_megapixels * MEGAPIXEL:
        raise InvalidMediaError(
            f"the picture is {width}x{height} px, {width * height / MEGAPIXEL:.1f} megapixels; "
            f"at most {max_megapixels} are taken",
            "scale it down, or raise SAFELIGHT_MAX_INPUT_MEGAPIXELS",
        )
    return MEDIA_TYPES[found], width, height


def _in_eight_bits(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """16-bit PNGs rounded to 8 bits; Pillow itself cuts grey values off at 255."""
    bits = image.tile[0].args if image.tile else None
    exif = image.getexif()
    if image.mode == "I;16":
        values = np.asarray(image).astype(np.uint32)
    elif image.format == "PNG" and bits in ("RGB;16B", "RGBA;16B"):
        # Pillow keeps the first byte of each value; told the other order, it gives the second.
        with Image.open(io.BytesIO(data)) as again:
            swapped = str(bits).replace("16B", "16L")
            again.tile = [part._replace(args=swapped) for part in again.tile]
            low = np.asarray(again)
        values = np.asarray(image).astype(np.uint32) * 256 + low
    else:
        return image
    eight = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    eight.info = {name: value for name, value in image.info.items() if name != "transparency"}
    eight.info["exif"] = exif.tobytes()
    return eight


def _in_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    if image.mode not in ("RGB", "RGBA", "L", "CMYK"):  # palettes, grey with alpha
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    try:
        changed = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            outputMode="RGBA" if image.mode == "RGBA" else "RGB",
        )
    except (ImageCms.PyCMSError, OSError):
        return image  # as every viewer shows a picture whose profile is broken or of another mode
    return image if changed is None else changed


def to_float(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """8-bit values to 0..1; the one place where this is done."""
    return pixels.astype(np.float32) / np.float32(255)


def to_uint8(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """0..1 to 8-bit values, rounded to the nearest; values outside are cut off."""
    return rounded(values * np.float32(255))


def rounded(levels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """8-bit levels that were computed as floats, rounded to the nearest and cut off at the ends."""
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
