"""What two programs that share no code of ours read in a file: FFmpeg and ExifTool."""

import json
import shutil
import subprocess
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None,
    reason="the program ffmpeg is not installed: scripts/setup.sh dev, or apt-get install ffmpeg",
)
needs_exiftool = pytest.mark.skipif(
    shutil.which("exiftool") is None,
    reason="the program exiftool is not installed: scripts/setup.sh dev, or apt-get install "
    "libimage-exiftool-perl",
)


def shown(path: Path, width: int, height: int, pix_fmt: str = "rgb24", *filters: str) -> np.ndarray:
    """Frames as FFmpeg shows them, turned: (frames, H, W, channels)."""
    ran = subprocess.run(
        ["ffmpeg", "-v", "error", "-nostdin", "-i", str(path), "-map", "0:v:0"]
        + (["-vf", ",".join(filters)] if filters else [])
        + ["-vsync", "passthrough", "-sws_flags", "accurate_rnd+full_chroma_int+bicubic"]
        + ["-f", "rawvideo", "-pix_fmt", pix_fmt, "-"],
        capture_output=True,
        check=True,
    )
    channels = 4 if pix_fmt == "rgba" else 3
    return np.frombuffer(ran.stdout, np.uint8).reshape(-1, height, width, channels).astype(int)


def exactly_seen(path: Path, width: int, height: int) -> np.ndarray:
    """The one picture of a JPEG, lossy WebP or AVIF, turned: (H, W, 3), rounded once.

    FFmpeg decodes, by its transform in floats: that in whole numbers is a level off in brightness
    and colour at once, which makes three in blue. Its scaler is left out, since its filter for
    colours of half the size is sharper than that of picture viewers. They take the triangle,
    between samples that lie in the middle of four pixels, and BT.601.
    """
    stream = probed(path, "-show_streams")["streams"][0]
    kind = stream["pix_fmt"]
    halved = kind in ("yuvj420p", "yuv420p")
    assert halved or kind in ("yuvj444p", "yuv444p", "gray"), kind
    assert stream["color_space"] in ("bt470bg", "smpte170m")
    ran = subprocess.run(  # in the file's own kind of pixels, so that nothing is converted
        [*"ffmpeg -v error -nostdin -idct faani -i".split(), path, *"-f rawvideo -".split()],
        capture_output=True,
        check=True,
    )
    planes = np.frombuffer(ran.stdout, np.uint8).astype(int)
    luma = planes[: height * width].reshape(height, width)
    if kind == "gray":
        return np.repeat(luma[..., None], 3, axis=2)
    blue, red = planes[height * width :].reshape(2, height >> halved, width >> halved) - 128
    if halved:
        blue, red = (_doubled(_doubled(each, 0), 1) for each in (blue, red))
    if stream["color_range"] == "tv":
        luma, blue, red = (luma - 16) * 255 / 219, blue * 255 / 224, red * 255 / 224
    # ITU-R BT.601: 0.299 red, 0.587 green, 0.114 blue
    colours = (
        luma + 1.402 * red,
        luma - (0.299 * 1.402 * red + 0.114 * 1.772 * blue) / 0.587,
        luma + 1.772 * blue,
    )
    return np.clip(np.rint(np.stack(colours, axis=-1)), 0, 255).astype(int)


def _doubled(samples: np.ndarray, axis: int) -> np.ndarray:
    """Twice as many along an axis: three parts of the nearest and one of the next."""
    along = np.moveaxis(samples, axis, 0)
    before, after = np.vstack((along[:1], along[:-1])), np.vstack((along[1:], along[-1:]))
    pairs = np.stack((0.75 * along + 0.25 * before, 0.75 * along + 0.25 * after), axis=1)
    return np.moveaxis(pairs.reshape(-1, *along.shape[1:]), 0, axis)


def probed(path: Path, *asked: str) -> dict[str, Any]:
    """What ffprobe says."""
    ran = subprocess.run(
        ["ffprobe", "-v", "error", *asked, "-of", "json", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(ran.stdout)


def times(path: Path, stream: str) -> list[Fraction]:
    """When each frame of a stream is shown, seconds, to the file's own clock."""
    found = probed(path, "-select_streams", stream, "-show_frames", "-show_streams")
    tick = Fraction(found["streams"][0]["time_base"])
    return [
        int(frame.get("pts", frame.get("best_effort_timestamp"))) * tick
        for frame in found["frames"]
    ]


def tags(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """What ExifTool reads in files, by name of file and of tag with its group."""
    ran = subprocess.run(
        ["exiftool", "-j", "-n", "-G0", *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
    )
    return {Path(each["SourceFile"]).name: each for each in json.loads(ran.stdout)}
