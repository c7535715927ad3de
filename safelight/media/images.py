"""Decoding pictures, and refusing what is not one."""

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError

from safelight.errors import InvalidMediaError
from safelight.settings import MEGAPIXEL

Image.MAX_IMAGE_PIXELS = None  # `max_megapixels` is asked before any pixel is decoded
MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
"""Pillow's format names of the pictures that are taken."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""From the EXIF orientation to what turns the picture upright."""
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
            colours, alpha = _layers(image, data)
            turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
            shown = _in_srgb(colours, image.info.get("icc_profile"))
            if alpha is not None:
                shown = Image.composite(shown, Image.new("RGB", shown.size, "white"), alpha)
            return np.array(shown if turn is None else shown.transpose(turn))
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


def _layers(image: ImageFile.ImageFile, data: bytes) -> tuple[Image.Image, Image.Image | None]:
    """Colours as L, RGB or CMYK, and what covers them as L; None where all is opaque."""
    deep = _sixteen_bits(image, data)
    if deep is not None:
        colours, cover = deep[..., :3], deep[..., 3:]
        key = image.info.get("transparency")  # the one value that is not shown
        if key is not None:
            cover = np.any(colours != key, axis=2, keepdims=True) * np.uint32(65535)
        return _picture(colours), _picture(cover) if cover.size else None
    if image.has_transparency_data:
        grey = image.mode in ("1", "L", "LA") or _order(image) == "LA;16B"
        *bands, alpha = image.convert("LA" if grey else "RGBA").split()
        return bands[0] if grey else Image.merge("RGB", bands), alpha
    if image.mode in ("L", "RGB", "CMYK"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _sixteen_bits(image: ImageFile.ImageFile, data: bytes) -> NDArray[np.uint32] | None:
    """(H, W, channels) of a 16-bit PNG; None for any other picture."""
    if image.mode == "I;16":
        return np.asarray(image).astype(np.uint32)[..., None]
    order = _order(image)
    if order not in ("RGB;16B", "RGBA;16B"):
        return None
    # Pillow keeps the first byte of each value; told the other order, it gives the second.
    with Image.open(io.BytesIO(data)) as again:
        swapped = order.replace("16B", "16L")
        again.tile = [part._replace(args=swapped) for part in again.tile]
        low = np.asarray(again)
    return np.asarray(image).astype(np.uint32) * 256 + low


def _order(image: ImageFile.ImageFile) -> str:
    """How the samples of a PNG lie in the file; empty for other pictures."""
    return str(image.tile[0].args) if image.format == "PNG" and image.tile else ""


def _picture(values: NDArray[np.uint32]) -> Image.Image:
    """16-bit values, rounded to 8 bits; one channel as L."""
    levels = ((values * 255 + 32767) // 65535).astype(np.uint8)
    return Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)


def _in_srgb(colours: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB; a profile that is broken or of another mode is left aside, as every viewer does."""
    if profile:
        try:
            opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            space = opened.profile.xcolor_space  # pyright: ignore[reportAttributeAccessIssue]
            if space.strip() == "RGB" and colours.mode == "L":
                colours = colours.convert("RGB")
            srgb = ImageCms.createProfile("sRGB")
            changed = ImageCms.profileToProfile(colours, opened, srgb, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            changed = None
        colours = changed or colours
    return colours.convert("RGB")


def to_float(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """8-bit values to 0..1; the one place where this is done."""
    return pixels.astype(np.float32) / np.float32(255)


def to_uint8(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """0..1 to 8-bit values, rounded to the nearest; values outside are cut off."""
    return rounded(values * np.float32(255))


def rounded(levels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """8-bit levels that were computed as floats, rounded to the nearest and cut off at the ends."""
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
