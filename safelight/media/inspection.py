"""Looking into foreign pictures, clips and sound, in a process with limits."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safelight.confined.calling import call_confined
from safelight.confined.transport import Array
from safelight.media.animation import Timing, timing_of
from safelight.media.images import decode_still, inspect_image
from safelight.media.sound import sound_type
from safelight.media.video.stream import VideoInfo, remember_walk, walked

_PICTURE = "the picture"
"""Its name, for messages: whoever asks knows the file's."""


@dataclass(frozen=True)
class StillFacts:
    """What a still or animated picture holds."""

    media_type: str
    """MIME type."""
    left_aside: tuple[str, ...]
    """What of the file was not taken, for people to read."""
    timing: Timing | None
    """How it plays; None unless it has several frames."""


def look_into_still(data: bytes, max_megapixels: float) -> tuple[StillFacts, NDArray[np.uint8]]:
    """Decode all of a picture.

    Args:
        data: the whole file.
        max_megapixels: larger ones are refused.

    Returns:
        The facts, and the first frame: (H, W, 3) uint8 sRGB, or (H, W, 4) with transparency.

    Raises:
        InvalidMediaError: not such a picture, damaged, or beyond the limits.
    """
    facts, pixels = call_confined(
        still_facts, max_megapixels, name=_PICTURE, file_bytes=len(data), data=data
    )
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise ValueError("no pixels")
    return facts, pixels.astype(np.uint8, copy=False)


def look_at_size(start: bytes, max_megapixels: float) -> tuple[int, int]:
    """Width and height from the beginning of a picture's file; raises as `inspect_image`."""
    return call_confined(
        size_told, max_megapixels, name=_PICTURE, file_bytes=len(start), data=start
    )[0]


def look_into_sound(path: Path) -> str:
    """As `probe_sound`."""
    size = path.stat().st_size
    return call_confined(sound_type, str(path), name=path.name, file_bytes=size)[0]


def look_into_video(path: Path) -> VideoInfo:
    """As `probe`; what was counted is remembered, so that stages do not count again."""
    size = path.stat().st_size
    walk, ticks = call_confined(walked, str(path), name=path.name, file_bytes=size)
    return remember_walk(path, walk, ticks)


def still_facts(data: bytes, max_megapixels: float) -> tuple[StillFacts, Array | None]:
    """What `look_into_still` has done in the confined process."""
    media_type, _, _ = inspect_image(data, max_megapixels)
    still = decode_still(data)  # a picture that breaks off is found here, not by a model
    timing = timing_of(data, max_megapixels) if still.animated else None
    if timing is not None and len(timing.lasts) == 1:
        timing = None
    return StillFacts(media_type, still.left_aside, timing), still.pixels


def size_told(start: bytes, max_megapixels: float) -> tuple[tuple[int, int], Array | None]:
    """What `look_at_size` has done in the confined process."""
    _, width, height = inspect_image(start, max_megapixels)
    return (width, height), None
