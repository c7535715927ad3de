"""Throughput of the interpolate stage over the same decoding, network and encoding without it.

Both run in this process on the shipped clip, alternately; prints one JSON line.
"""

import json
import os
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

CLIP = Path(__file__).parents[2] / "examples" / "box.mp4"
ROUNDS = 3
BAR = 0.95


def bare(source: Path, target: Path) -> int:
    """Double the rate with PyAV and the network alone: no store, checks, progress or sound."""
    import av

    from safelight.engines.rife.engine import Rife
    from safelight.media.video.stream import X264

    engine, made = Rife(), 0
    with av.open(str(source)) as inp, av.open(str(target), "w") as out:
        stream = out.add_stream("libx264", rate=60, options=X264)
        before = None
        for frame in inp.decode(video=0):
            pixels = frame.to_ndarray(format="rgb24")
            if before is None:
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = "yuv420p"
                shown = [pixels]
            else:
                shown = [engine.between(before, pixels, 0.5), pixels]
            for each in shown:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(each, format="rgb24")))
                made += 1
            before = pixels
        out.mux(stream.encode(None))
    return made


def removed_frames(source: Path) -> tuple[float, float]:
    """Mean PSNR in dB of every second frame made again from its neighbours: network, blending."""
    import numpy as np

    from safelight.engines.rife.engine import Rife
    from safelight.media.video.stream import read_frames

    frames = list(read_frames(source))
    scores = []
    for before, truth, after in zip(frames[::2], frames[1::2], frames[2::2], strict=False):
        blended = (before.astype(float) + after) / 2
        errors = [
            np.mean((each - truth.astype(float)) ** 2)
            for each in (Rife().between(before, after, 0.5), blended)
        ]
        scores.append([10 * np.log10(255**2 / error) for error in errors])
    network, blending = np.mean(scores, axis=0)
    return float(network), float(blending)


def main() -> int:
    """Measure and print."""
    from safelight.store.store import current_store
    from tasks.interpolate import InterpolateParams, interpolate

    with tempfile.TemporaryDirectory() as folder:
        os.environ["VOLUME_ROOT"] = folder
        target = Path(folder) / "bare.mp4"
        ref = current_store().put(CLIP, "video/mp4")
        seconds: dict[str, list[float]] = {"bare": [], "stage": []}
        frames: dict[str, int] = {}
        bare(CLIP, target)  # loads the network and warms both up
        for _ in range(ROUNDS):
            started = time.perf_counter()
            frames["bare"] = bare(CLIP, target)
            seconds["bare"].append(time.perf_counter() - started)
            started = time.perf_counter()
            made = interpolate.fn(ref, InterpolateParams(target_fps=60))
            seconds["stage"].append(time.perf_counter() - started)
            frames["stage"] = made.frames or 0
    fps = {name: frames[name] / min(seconds[name]) for name in seconds}
    network, blending = removed_frames(CLIP)
    result = {
        "benchmark": "interpolate",
        "stage_fps": round(fps["stage"], 2),
        "bare_fps": round(fps["bare"], 2),
        "ratio": round(fps["stage"] / fps["bare"], 3),
        "bar": BAR,
        "psnr_network_db": round(network, 2),
        "psnr_blending_db": round(blending, 2),
        "exact": made.fps == float(Fraction(60)) and made.frames == 144,
    }
    sys.stdout.write(json.dumps(result) + "\n")
    return 0 if result["ratio"] >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
