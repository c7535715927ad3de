"""Clips that tests make, and clips that tests send through frame by frame."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from safelight.media.video.stream import FrameWriter, VideoInfo, probe, transform_frames
from safelight.pixels import Pixels


def write_video(
    target: Path, frames: Iterable[Pixels], fps: Fraction, tags: dict[str, str] | None = None
) -> VideoInfo:
    """Encode frames without sound.

    Args:
        target: the file to make; always MP4.
        frames: (H, W, 3) uint8 sRGB each, all of one size, at least one.
        fps: frames per second.
        tags: container metadata.
    """
    with FrameWriter(target, fps, tags or {}) as writer:
        for pixels in frames:
            writer.add(pixels)
    return replace(probe(target), media_type=writer.media_type)


def map_frames(
    source: Path, target: Path, fn: Callable[[Pixels], Pixels], tags: dict[str, str]
) -> VideoInfo:
    """`transform_frames` for work on each frame alone."""
    return transform_frames(source, target, lambda frames: map(fn, frames), tags)


def alphas_in(path: Path) -> list[np.ndarray]:
    """(H, W) of each frame, as the decoder of libvpx gives it."""
    found: list[np.ndarray] = []
    with av.open(str(path)) as made:
        decoder = av.CodecContext.create("libvpx-vp9", "r")
        stream = made.streams.video[0]
        assert stream.metadata["ALPHA_MODE"] == "1"
        for packet in made.demux(stream):
            for frame in decoder.decode(packet) if packet.size else ():
                # not by FFmpeg's quick conversion, which fails where the width is no multiple of 8
                plane = frame.planes[3]
                lines = np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)
                found.append(lines[:, : plane.width].astype(int))
    return found
