"""From an opened picture to 8-bit sRGB: bit depth, transparency, declared colour and profiles."""

import io
import sys
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile

from safelight.errors import InvalidMediaError
from safelight.media.png_chunks import PROFILE_LIMIT
from safelight.media.still_source import DAMAGE, Source, turn_of

_BAND_ROWS = 256
_SAMPLES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_OTHER_ORDERS = {
    **{f"{bands};16B": f"{bands};16L" for bands in ("RGB", "RGBA")},
    **{f"{bands};16L": f"{bands};16B" for bands in ("RGB", "RGBA")},
    **{
        f"{bands};16N": f"{bands};16{'B' if sys.byteorder == 'little' else 'L'}"
        for bands in ("RGB", "RGBA")
    },
}
"""By how 16-bit samples lie in a file, the order of bytes that they do not have."""


def shown(
    image: ImageFile.ImageFile, source: Source, left_aside: list[str], *, animated: bool = False
) -> NDArray[np.uint8]:
    """What a viewer shows of an opened picture.

    Args:
        image: at the frame that is wanted.
        source: the file; its `bits` are filled in.
        left_aside: is given what is not taken.
        animated: whether it is a frame of several; of 16 bits only the first 8 are read there.

    Returns:
        (H, W, 3) uint8 sRGB, upright, or (H, W, 4) where some of it is transparent.

    Raises:
        InvalidMediaError: samples of a kind that is not known.
    """
    colours, alpha = _layers(image, source, animated)
    turn = turn_of(source, left_aside)
    if source.colour is None:
        colours = _in_srgb(colours, source.profile, left_aside)
    if colours.mode != "RGB":
        colours = colours.convert("RGB")
    layers = [colours] if alpha is None else [colours, alpha]
    arrays = [np.asarray(part if turn is None else part.transpose(turn)) for part in layers]
    return arrays[0].copy() if alpha is None else np.dstack(arrays)


def _layers(
    image: ImageFile.ImageFile, source: Source, animated: bool
) -> tuple[Image.Image, Image.Image | None]:
    """Colours as L, RGB or CMYK, and what covers them as L; None where all is opaque."""
    deep = _sixteen_bits(image, source, animated)
    if deep is not None:
        return deep
    if ";16" in _order(image):
        source.bits = 16
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
    image: ImageFile.ImageFile, source: Source, animated: bool
) -> tuple[Image.Image, Image.Image | None] | None:
    """Layers of a picture with 16-bit values; None for any other."""
    order = _order(image)
    if image.mode.startswith("I;16"):
        parts, channels = (np.asarray(image)[..., None],), 1
    elif order in _OTHER_ORDERS and not animated:
        # Pillow keeps the first byte of each value; told the other order, it gives the second.
        with Image.open(io.BytesIO(source.data), formats=(source.found,)) as again:
            again.tile = [
                part._replace(args=_reordered(part.args, _OTHER_ORDERS[order]))
                for part in again.tile
            ]
            again.load()
            parts, channels = (image, again.copy()), len(image.getbands())
        image.load()
    else:
        return None
    source.bits = 16
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
    """How the samples of a PNG or TIFF lie in the file; empty for other pictures."""
    if image.format not in ("PNG", "TIFF") or not image.tile:
        return ""
    told = image.tile[0].args
    return str(told[0] if isinstance(told, tuple) else told)


def _reordered(args: object, order: str) -> object:
    return (order, *cast("tuple[object, ...]", args)[1:]) if isinstance(args, tuple) else order


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
    except (ImageCms.PyCMSError, *DAMAGE):
        changed = None
    if changed is None:
        left_aside.append("a colour profile that is damaged, or of another kind of colour")
    return changed or colours
