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
