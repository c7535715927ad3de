"""From a decoded frame to upright sRGB pixels, and back to what an encoder takes."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from safelight.errors import InvalidMediaError
from safelight.pixels import Pixels

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream


BT709, UNTAGGED, BT601 = 1, 2, 5
"""Colour matrices, and primaries, as FFmpeg numbers them."""
READ_MATRICES = frozenset({0, 1, 2, 4, 5, 6, 7, 9, 10})
"""RGB, BT.601 and 709, FCC, SMPTE 240M and BT.2020; not YCgCo and ICtCp, whose arithmetic is
another."""
LIMITED, FULL = 1, 2
"""Ranges of luma: 16 to 235, or 0 to 255."""
HD_LINES = 720
"""From this height on, players read colours without a tag as BT.709, below it as BT.601."""
WIDE_TRANSFERS = {16: "PQ", 18: "HLG"}
"""Transfer curves of high dynamic range, which 8-bit sRGB cannot hold."""
CARRIED_PRIMARIES = frozenset({1, 4, 5, 6, 7, 8, 9, 11, 12})
"""BT.709, 470, 601, 240M, film, BT.2020 and the two P3: what H.264 and players know."""
CARRIED_TRANSFERS = frozenset({1, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 17})


@dataclass(frozen=True)
class ColourTags:
    """What a file says its red, green and blue are; a result of it says the same.

    The pixels themselves are not converted, so that a player that heeds the tags and one that does
    not both show the result as they show the source.
    """

    primaries: int = BT709
    transfer: int = BT709


def colour_tags(frame: "VideoFrame", stream: "VideoStream") -> ColourTags:
    """The tags of a frame, else of its container, else BT.709."""
    context = stream.codec_context
    primaries = _first((frame.color_primaries, context.color_primaries), CARRIED_PRIMARIES)
    transfer = _first((frame.color_trc, context.color_trc), CARRIED_TRANSFERS)
    return ColourTags(primaries, transfer)


def _first(found: tuple[int, int], known: frozenset[int]) -> int:
    return next((int(each) for each in found if each in known), BT709)


def to_rgb(frame: "VideoFrame", stream: "VideoStream", path: Path) -> Pixels:
    """(H, W, 3) uint8 RGB as stored, not yet turned; (H, W, 4) where the format has alpha.

    Raises:
        InvalidMediaError: high dynamic range, or a colour matrix of another kind.
    """
    context = stream.codec_context
    wide = WIDE_TRANSFERS.get(frame.color_trc) or WIDE_TRANSFERS.get(context.color_trc)
    if wide:
        raise InvalidMediaError(
            f"{path.name} is high dynamic range ({wide}), expected standard range",
            "export it as SDR (BT.709)",
        )
    matrix = context.colorspace if frame.colorspace == UNTAGGED else frame.colorspace
    if matrix not in READ_MATRICES:
        raise InvalidMediaError(
            f"{path.name} has colours of matrix {matrix} (YCgCo or ICtCp), expected BT.601, "
            "BT.709 or BT.2020",
            "export it as BT.709",
        )
    if matrix == UNTAGGED:
        matrix = BT709 if frame.height >= HD_LINES else BT601
    told = frame.color_range or context.color_range
    full = told == FULL or frame.format.name.startswith("yuvj")
    alpha = has_alpha(frame)
    pixels: Pixels = frame.reformat(
        format="rgba" if alpha else "rgb24",
        src_colorspace=matrix,
        src_color_range=FULL if full or frame.format.is_rgb else LIMITED,
        dst_color_range=FULL,
        interpolation=exact_scaling(),
    ).to_ndarray()  # pyright: ignore[reportAssignmentType] - 8 bits a channel
    return pixels


def has_alpha(frame: "VideoFrame") -> bool:
    """Whether a frame says how far its pixels are transparent."""
    return _format_has_alpha(frame.format.name)


@cache
def _format_has_alpha(name: str) -> bool:
    from av.video.format import VideoFormat

    known = VideoFormat(name)
    return known.has_palette or any(part.is_alpha for part in known.components)


def to_encode(pixels: Pixels, pix_fmt: str, tags: ColourTags) -> "VideoFrame":
    """A frame of (H, W, 3 or 4) uint8 in an encoder's format: BT.709's matrix, limited range."""
    from av import VideoFrame

    form = "rgba" if pixels.shape[2] == 4 else "rgb24"
    rgb = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=form)
    frame = rgb.reformat(
        format=pix_fmt,
        dst_colorspace=BT709,
        src_color_range=FULL,
        dst_color_range=LIMITED,
        interpolation=exact_scaling(),
    )
    frame.color_primaries, frame.color_trc = tags.primaries, tags.transfer
    return frame


def exact_scaling() -> int:
    """Flags of the conversion that cost no colour."""
    from av.video.reformatter import Interpolation as Scaling

    return Scaling.BICUBIC | Scaling.ACCURATE_RND | Scaling.FULL_CHR_H_INT | Scaling.FULL_CHR_H_INP
