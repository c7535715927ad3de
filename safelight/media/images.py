"""Decoding pictures, and refusing what is not one."""

import io
import struct
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError

from safelight.errors import InvalidMediaError
from safelight.media.declared_colour import DeclaredColour, coded_colour, declared_colour
from safelight.media.jpeg_segments import jpeg_parts, require_all_scans
from safelight.media.layers import on_white
from safelight.media.png_chunks import PROFILE_LIMIT, inflated, png_parts
from safelight.media.still_formats import (
    HEAD,
    MEDIA_TYPES,
    NAMES,
    jxl_size,
    open_plugin,
    still_format,
)
from safelight.settings import MEGAPIXEL

Image.MAX_IMAGE_PIXELS = None  # `max_megapixels` is asked before any pixel is decoded
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
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    LookupError,
    EOFError,
    RuntimeError,
    struct.error,
)
"""What Pillow and its plug-ins raise on damaged files."""
_BAND_ROWS = 256
_SAMPLES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")


@dataclass(frozen=True)
class Still:
    """One decoded picture."""

    pixels: NDArray[np.uint8]
    """(H, W, 3) uint8 sRGB, or (H, W, 4) where some of it is transparent."""
    left_aside: tuple[str, ...] = ()
    """What of the file was not taken, for people to read."""


@dataclass
class _Source:
    """A file made ready for the decoder."""

    found: str
    data: bytes
    profile: bytes | None = None
    colour: DeclaredColour | None = None
    exif: bytes | None = None
    turned: bool = False
    whole: bool = True


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
    first.

    Args:
        data: the whole file.
        max_megapixels: see `inspect_image`.

    Raises:
        InvalidMediaError: not such a picture, truncated, or larger than the limit.
    """
    inspect_image(data, max_megapixels)
    left_aside: list[str] = []
    with _damage_named("the picture breaks off or is damaged"):
        source = _taken_apart(data, left_aside)
        if not source.whole:
            require_all_scans(source.data)
        with Image.open(io.BytesIO(source.data), formats=(source.found,)) as image:
            _ask_plugin(source, image, left_aside)
            colours, alpha = _layers(image, source)
            count = getattr(image, "n_frames", 1)
            if count > 1:
                kind = "pages" if source.found == "TIFF" else "frames"
                left_aside.append(f"all but the first of {count} {kind}")
            turn = None if source.turned else _turn(source.exif, left_aside)
            if source.colour is None:
                colours = _in_srgb(colours, source.profile, left_aside)
            if colours.mode != "RGB":
                colours = colours.convert("RGB")
            layers = [colours] if alpha is None else [colours, alpha]
            shown = [np.asarray(part if turn is None else part.transpose(turn)) for part in layers]
            pixels = shown[0].copy() if alpha is None else np.dstack(shown)
    return Still(pixels, tuple(left_aside))


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
            f"found bytes that start with {data[:8]!r}, expected a {NAMES} picture",
            "convert the file to PNG, JPEG or WebP",
        )
    with _damage_named("the head of the picture is damaged"):
        width, height = _size(found, data)
    if max_megapixels is not None and width * height > max_megapixels * MEGAPIXEL:
        raise InvalidMediaError(
            f"the picture is {width}x{height} px, {width * height / MEGAPIXEL:.1f} megapixels; "
            f"at most {max_megapixels} are taken",
            "scale it down, or raise SAFELIGHT_MAX_INPUT_MEGAPIXELS",
        )
    return MEDIA_TYPES[found], width, height


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
        _damage_named("the head of the picture is damaged"),
        Image.open(io.BytesIO(head), formats=(found or "",)) as image,
    ):
        if found == "TIFF":
            exif = image.getexif().tobytes()
        block = image.info.get("exif") if exif is None else exif
        dots = image.info.get("dpi", (0, 0))
        known = isinstance(dots, tuple) and dots[0] == dots[1] and 1 < dots[0] < 65_536
        return block, round(float(dots[0]) / 0.0254) if known else None


@contextmanager
def _damage_named(problem: str) -> Generator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on metadata that is left aside anyway
            yield
    except UnidentifiedImageError as error:
        raise InvalidMediaError(f"{problem}: no decoder takes it", "export it again") from error
    except _DAMAGE as error:
        raise InvalidMediaError(f"{problem}: {error}", "export the picture again") from error


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


def _taken_apart(data: bytes, left_aside: list[str]) -> _Source:
    """What the decoder gets, apart from what only describes the picture."""
    found = still_format(data[:HEAD]) or ""
    open_plugin(found)
    if found == "JPEG":
        jpeg = jpeg_parts(data)
        left_aside += jpeg.left_aside
        if not jpeg.ended:
            left_aside.append("a missing end marker")
        return _Source(found, jpeg.pixels, jpeg.profile, exif=jpeg.exif, whole=jpeg.ended)
    if found != "PNG":
        return _Source(found, data)
    png = png_parts(data)
    left_aside += png.left_aside
    if png.frames > 1:
        left_aside.append(f"all but the first of {png.frames} frames")
    source = _Source(found, png.pixels, exif=png.exif)
    if b"iCCP" in png.colour and b"cICP" not in png.colour:
        source.profile = inflated(png.colour[b"iCCP"].partition(b"\0")[2][1:], PROFILE_LIMIT)
        if source.profile is not None:
            return source
        left_aside.append("a colour profile that is damaged or too long")
    try:
        source.colour = declared_colour(png.colour)
    except (ValueError, ArithmeticError) as error:
        left_aside.append(f"declared colour that makes no sense ({error})")
    if source.colour is not None and source.colour.remark:
        left_aside.append(source.colour.remark)
    return source


def _ask_plugin(source: _Source, image: ImageFile.ImageFile, left_aside: list[str]) -> None:
    """Take profile and EXIF from where Pillow found them, for formats not taken apart here."""
    if source.found in ("PNG", "JPEG"):
        return
    profile = image.info.get("icc_profile")
    source.profile = profile if isinstance(profile, bytes) else None
    exif = image.info.get("exif")
    source.exif = exif if isinstance(exif, bytes) else None
    # these are turned by their decoders
    source.turned = source.found in ("HEIF", "TIFF") or (
        source.found == "JXL" and not getattr(image, "jpeg", False)
    )
    coded: dict[str, Any] | None = image.info.get("nclx_profile")
    if source.found == "HEIF" and coded and not source.profile:
        try:
            source.colour = coded_colour(
                int(coded["color_primaries"]), int(coded["transfer_characteristics"])
            )
        except (ValueError, KeyError) as error:
            left_aside.append(f"declared colour that is not known ({error})")
        if source.colour is not None and source.colour.remark:
            left_aside.append(source.colour.remark)


def _turn(exif: bytes | None, left_aside: list[str]) -> Image.Transpose | None:
    if not exif:
        return None
    try:
        read = Image.Exif()
        read.load(exif)
        return _TURNS.get(read.get(ExifTags.Base.Orientation, 1))
    except _DAMAGE:
        left_aside.append("EXIF that is damaged")
        return None


def _layers(image: ImageFile.ImageFile, source: _Source) -> tuple[Image.Image, Image.Image | None]:
    """Colours as L, RGB or CMYK, and what covers them as L; None where all is opaque."""
    deep = _sixteen_bits(image, source)
    if deep is not None:
        return deep
    if image.mode not in _SAMPLES:
        raise InvalidMediaError(
            f"the picture has samples of the kind {image.mode}, expected 8 or 16 bits of grey, "
            "RGB or CMYK",
            "save it with 8 or 16 bits a channel",
        )
    colours, alpha = image, None
    if image.has_transparency_data or image.mode in ("La", "PA", "RGBa"):
        grey = image.mode in ("1", "L", "LA", "La") or _order(image) == "LA;16B"
        *bands, alpha = image.convert("LA" if grey else "RGBA").split()
        colours = bands[0] if grey else Image.merge("RGB", bands)
        if alpha.getextrema()[0] == 255:
            alpha = None
    elif image.mode not in ("L", "RGB", "CMYK"):
        colours = image.convert("L" if image.mode == "1" else "RGB")
    if source.colour is not None:
        values = np.asarray(colours)
        values = values[..., None] if values.ndim == 2 else values
        colours = _picture(source.colour.applied(values, 255))
    else:
        colours.load()
    return colours, alpha


def _sixteen_bits(
    image: ImageFile.ImageFile, source: _Source
) -> tuple[Image.Image, Image.Image | None] | None:
    """Layers of a picture with 16-bit values; None for any other."""
    order = _order(image)
    if image.mode.startswith("I;16"):
        parts, channels = (np.asarray(image)[..., None],), 1
    elif order in ("RGB;16B", "RGBA;16B"):
        # Pillow keeps the first byte of each value; told the other order, it gives the second.
        with Image.open(io.BytesIO(source.data), formats=(source.found,)) as again:
            swapped = order.replace("16B", "16L")
            again.tile = [part._replace(args=swapped) for part in again.tile]
            again.load()
            parts, channels = (image, again.copy()), len(image.getbands())
        image.load()
    else:
        return None
    key = image.info.get("transparency")  # the one value that is not shown
    width, height = image.size
    colours = np.empty((height, width, min(channels, 3)), np.uint8)
    cover = np.empty((height, width), np.uint8) if channels == 4 or key is not None else None
    for top in range(0, height, _BAND_ROWS):
        rows = slice(top, min(top + _BAND_ROWS, height))
        values = _band(parts, rows, width)
        colour = values[..., :3]
        colours[rows] = (
            _levels(colour) if source.colour is None else source.colour.applied(colour, 65535)
        )
        if cover is not None:
            cover[rows] = (
                _levels(values[..., 3])
                if channels == 4
                else np.any(colour != key, axis=2) * np.uint8(255)
            )
    alpha = None if cover is None or cover.min() == 255 else Image.fromarray(cover)
    return _picture(colours), alpha


def _band(parts: tuple[Any, ...], rows: slice, width: int) -> NDArray[np.uint32]:
    """16-bit values of some rows, (h, W, channels)."""
    if len(parts) == 1:
        return parts[0][rows].astype(np.uint32)
    box = (0, rows.start, width, rows.stop)
    high, low = (np.asarray(part.crop(box)).astype(np.uint32) for part in parts)
    return high * 256 + low


def _order(image: ImageFile.ImageFile) -> str:
    """How the samples of a PNG lie in the file; empty for other pictures."""
    return str(image.tile[0].args) if image.format == "PNG" and image.tile else ""


def _levels(values: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """16-bit values rounded to 8 bits."""
    return ((values * 255 + 32767) // 65535).astype(np.uint8)


def _picture(levels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)


def _in_srgb(colours: Image.Image, profile: bytes | None, left_aside: list[str]) -> Image.Image:
    """A profile that is broken or of another mode is left aside, as every viewer does."""
    if not profile:
        return colours
    try:
        if len(profile) > PROFILE_LIMIT:
            raise OSError("too long")
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = opened.profile.xcolor_space  # pyright: ignore[reportAttributeAccessIssue]
        if space.strip() == "RGB" and colours.mode == "L":
            colours = colours.convert("RGB")
        srgb = ImageCms.createProfile("sRGB")
        changed = ImageCms.profileToProfile(colours, opened, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, *_DAMAGE):
        changed = None
    if changed is None:
        left_aside.append("a colour profile that is damaged, or of another kind of colour")
    return changed or colours


def to_float(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """8-bit values to 0..1; the one place where this is done."""
    return pixels.astype(np.float32) / np.float32(255)


def to_uint8(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """0..1 to 8-bit values, rounded to the nearest; values outside are cut off."""
    return rounded(values * np.float32(255))


def rounded(levels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """8-bit levels that were computed as floats, rounded to the nearest and cut off at the ends."""
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
