"""Clips that tests make, and clips that tests send through frame by frame."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from safelight.media.video.stream import FrameWriter, VideoInfo, probe, transform_frames
from safelight.pixels import Pixels


def write_video(
    target: Path,
    frames: Iterable[Pixels],
    fps: Fraction,
    tags: dict[str, str] | None = None,
    coarser: float = 0.0,
) -> VideoInfo:
    """Encode frames without sound.

    Args:
        target: the file to make; always MP4.
        frames: (H, W, 3) uint8 sRGB each, all of one size, at least one.
        fps: frames per second.
        tags: container metadata.
        coarser: see `FrameWriter`.
    """
    with FrameWriter(target, fps, tags or {}, coarser=coarser) as writer:
        for pixels in frames:
            writer.add(pixels)
    return replace(probe(target), media_type=writer.media_type)


def map_frames(
    source: Path, target: Path, fn: Callable[[Pixels], Pixels], tags: dict[str, str]
) -> VideoInfo:
    """`transform_frames` for work on each frame alone."""
    return transform_frames(source, target, lambda frames: map(fn, frames), tags)
