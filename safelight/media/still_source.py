"""A picture's file made ready for its decoder, apart from what only describes the picture."""

import struct
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from safelight.errors import InvalidMediaError
from safelight.media.declared_colour import DeclaredColour, coded_colour, declared_colour
from safelight.media.jpeg_segments import jpeg_parts
from safelight.media.png_chunks import PROFILE_LIMIT, inflated, png_parts
from safelight.media.still_formats import HEAD, bits_told, open_plugin, primaries_told, still_format

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
DAMAGE = (
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


@dataclass
class Source:
    """A file made ready for the decoder."""

    found: str
    """Pillow's name of the format."""
    data: bytes
    profile: bytes | None = None
    """ICC profile of the pixels."""
    colour: DeclaredColour | None = None
    """What tells the colour instead of a profile."""
    exif: bytes | None = None
    turned: bool = False
    """Whether the decoder turns the picture upright."""
    whole: bool = True
    """Whether the file has its end."""
    bits: int = 8
    """Of each channel, as far as the file says so outside of its pixels."""
    frames: int = 1
    """Of an animated PNG, whose decoder is not given the others."""


@contextmanager
def damage_named(problem: str) -> Generator[None]:
    """Tell what decoders raise on damaged files as a refusal.

    Raises:
        InvalidMediaError: in place of what was raised.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on metadata that is left aside anyway
            yield
    except UnidentifiedImageError as error:
        raise InvalidMediaError(f"{problem}: no decoder takes it", "export it again") from error
    except DAMAGE as error:
        raise InvalidMediaError(f"{problem}: {error}", "export the picture again") from error


def taken_apart(data: bytes, left_aside: list[str], *, animated: bool = False) -> Source:
    """What the decoder gets.

    Args:
        data: the whole file.
        left_aside: is given what is not taken.
        animated: whether the frames behind the first are wanted too.
    """
    found = still_format(data[:HEAD]) or ""
    open_plugin(found)
    if found == "JPEG":
        jpeg = jpeg_parts(data)
        left_aside += jpeg.left_aside
        if not jpeg.ended:
            left_aside.append("a missing end marker")
        return Source(found, jpeg.pixels, jpeg.profile, exif=jpeg.exif, whole=jpeg.ended)
    if found != "PNG":
        return Source(found, data)
    png = png_parts(data, animated=animated)
    left_aside += png.left_aside
    source = Source(found, png.pixels, exif=png.exif, frames=png.frames)
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


def ask_plugin(source: Source, image: ImageFile.ImageFile, left_aside: list[str]) -> None:
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
    source.bits = int(image.info.get("bit_depth") or 8)
    coded: tuple[int, int] | None = None
    if source.found == "AVIF":
        coded, source.bits = primaries_told(source.data), bits_told(source.data)
    nclx: dict[str, Any] | None = image.info.get("nclx_profile")
    try:
        if source.found == "HEIF" and nclx:
            coded = int(nclx["color_primaries"]), int(nclx["transfer_characteristics"])
        if coded and not source.profile:
            source.colour = coded_colour(*coded)
    except (ValueError, KeyError) as error:
        left_aside.append(f"declared colour that is not known ({error})")
    if source.colour is not None and source.colour.remark:
        left_aside.append(source.colour.remark)


def turn_of(source: Source, left_aside: list[str]) -> Image.Transpose | None:
    """What turns the picture upright."""
    if source.turned or not source.exif:
        return None
    try:
        read = Image.Exif()
        read.load(source.exif)
        return _TURNS.get(read.get(ExifTags.Base.Orientation, 1))
    except DAMAGE:
        left_aside.append("EXIF that is damaged")
        return None
