"""Small pictures as data: URIs, which a browser shows without asking any server."""

import base64
import io
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from safelight.errors import InvalidMediaError, MissingFileError
from safelight.pixels import Pixels

Format = Literal["image/webp", "image/jpeg"]
LONGEST = 40_000
"""Characters of the whole URI; Prefect keeps it in its database with the artifact."""
SIDES = (512, 384, 256, 192, 128, 96, 64, 32)
"""Tried from the largest, in pixels."""
QUALITIES = (80, 60)
"""Tried before the next smaller side; below 60, blocks show."""
STRIP_GAP = 4
"""Pixels between the shots of a poster strip."""


def picture_preview(
    pixels: Pixels, media_type: Format = "image/webp", longest: int = LONGEST
) -> str:
    """A picture scaled down until its data: URI is short enough; the same pixels, the same URI.

    Args:
        pixels: (H, W, 3) uint8 sRGB.
        media_type: WebP is a third smaller; JPEG is shown everywhere.
        longest: characters the URI may have.

    Raises:
        ValueError: not even the smallest preview fits into `longest`.
    """
    uri = ""
    largest = Image.fromarray(pixels)
    largest.thumbnail((SIDES[0], SIDES[0]), Image.Resampling.LANCZOS, reducing_gap=3.0)
    for side, quality in product(SIDES, QUALITIES):
        image = largest.copy()
        image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
        buffer = io.BytesIO()
        if media_type == "image/webp":
            image.save(buffer, "WEBP", quality=quality, method=4)
        else:
            image.save(buffer, "JPEG", quality=quality)
        uri = f"data:{media_type};base64,{base64.b64encode(buffer.getvalue()).decode()}"
        if len(uri) <= longest:
            return uri
    raise ValueError(f"the smallest preview has {len(uri)} characters, {longest} are allowed")


def video_preview(path: Path, shots: int = 1, media_type: Format = "image/webp") -> str:
    """The middle frame of a video, or a poster strip of several, as a data: URI.

    Args:
        path: MP4, MOV, MKV, WebM or MXF.
        shots: frames side by side, at equal distances; an odd number has the middle one.
        media_type: see `picture_preview`.

    Raises:
        MissingFileError: there is no such file.
        InvalidMediaError: no video that can be decoded.
        ValueError: `shots` is under 1.
    """
    return picture_preview(poster_strip(path, shots), media_type)


def poster_strip(path: Path, shots: int = 3) -> Pixels:
    """Frames of a video side by side on white; only what lies near them is decoded.

    Returns:
        (H, shots * W + gaps, 3) uint8 sRGB.

    Raises:
        MissingFileError: there is no such file.
        InvalidMediaError: no video that can be decoded.
        ValueError: `shots` is under 1.
    """
    if shots < 1:
        raise ValueError(f"{shots} shots, expected at least 1")
    frames = list(_frames_at(path, [(2 * shot + 1) / (2 * shots) for shot in range(shots)]))
    gap = np.full((frames[0].shape[0], STRIP_GAP, 3), 255, np.uint8)
    pieces = [piece for frame in frames for piece in (gap, frame)]
    return np.concatenate(pieces[1:], axis=1)


def _frames_at(path: Path, moments: list[float]) -> Iterator[Pixels]:
    """The frame shown at each of the moments, which are shares of the whole length."""
    import av
    import av.error

    if not path.is_file():
        raise MissingFileError(f"no file at {path}", "check the path")
    try:
        with av.open(
            str(path),
            metadata_errors="replace",
            options={"format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mxf"},
        ) as container:
            if not container.streams.video:
                raise _nothing_to_show(path)
            stream = container.streams.video[0]
            start, length = container.start_time or 0, container.duration or 0
            for moment in moments:
                wanted = start + int(moment * length)
                container.seek(wanted)
                shown = None
                for frame in container.decode(stream):
                    if shown is not None and (frame.time or 0.0) * av.time_base > wanted:
                        break
                    shown = frame
                if shown is None:
                    raise _nothing_to_show(path)
                rgb = np.asarray(shown.to_ndarray(format="rgb24"), np.uint8)
                yield np.ascontiguousarray(np.rot90(rgb, round(shown.rotation / 90) % 4))
    except av.error.FFmpegError as error:
        raise InvalidMediaError(
            f"{path.name} cannot be decoded: {error.strerror}", "export the video again as MP4"
        ) from error


def _nothing_to_show(path: Path) -> InvalidMediaError:
    return InvalidMediaError(
        f"{path.name} holds no video frame, expected at least 1", "export the video again"
    )
