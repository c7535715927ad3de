"""Throughput of tiled enlarging over the bare engine: `python -m tests.benchmarks.upscale`.

Prints one JSON line. Ratios are bare seconds over ours, on the same pixels, in one process, the
runs taking turns and the fastest of each counting. `--memory` measures peaks at 1024 and 4096 px a
side as well, in processes of their own, which takes minutes.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

import numpy as np

from safelight.engines.realesrgan.engine import (
    NETWORKS,
    Enlarger,
    Model,
    averaged_down,
    open_enlarger,
    physical_cores,
    weights_files,
)
from safelight.media.tiles import tiles

ROUNDS = 3
BAR = 0.95
MEMORY_BAR = 1.3
PEAK = """
import sys
import numpy as np
from skimage import data
from safelight.engines.machine.measure import measured
from safelight.engines.realesrgan.engine import open_enlarger
side = int(sys.argv[1])
picture = np.tile(data.astronaut(), (side // 512, side // 512, 1))
with measured() as cost:
    larger = open_enlarger("video", 2, 256).enlarge(picture)
print(cost.peak_bytes, picture.nbytes + larger.nbytes, cost.seconds)
"""


class BareNcnn:
    """What a few lines around ncnn give: no tiles, no errors, no progress."""

    def __init__(self, model: Model, factor: int) -> None:
        self._ncnn, self._factor = cast(Any, import_module("ncnn")), factor
        self._net = self._ncnn.Net()
        self._net.opt.num_threads = physical_cores()
        param, weights = weights_files(NETWORKS[model])
        self._net.load_param(str(param))
        self._net.load_model(str(weights))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        pixels = np.ascontiguousarray(image)
        rgb = self._ncnn.Mat.PixelType.PIXEL_RGB
        blob = self._ncnn.Mat.from_pixels(pixels, rgb, width, height)
        blob.substract_mean_normalize([], [1 / 255] * 3)
        with self._net.create_extractor() as extractor:
            extractor.input("data", blob)
            _, result = extractor.extract("output")
            native = np.array(result)
        levels = np.clip(np.rint(averaged_down(native, self._factor) * np.float32(255)), 0, 255)
        return np.moveaxis(levels.astype(np.uint8), 0, 2)


def fastest(*work: Callable[[], object]) -> list[float]:
    """Seconds of the fastest of `ROUNDS` runs of each, taking turns."""
    seconds = [[0.0] * ROUNDS for _ in work]
    for turn in range(ROUNDS):
        for which, run in enumerate(work):
            started = time.perf_counter()
            run()
            seconds[which][turn] = time.perf_counter() - started
    return [min(runs) for runs in seconds]


def throughput(model: Model, factor: int, side: int, tile: int) -> dict[str, float]:
    """Ratios of the tiled path to bare ncnn: in the same windows, and all at once."""
    from skimage import data

    picture = np.ascontiguousarray(data.astronaut()[:side, :side])
    enlarger: Enlarger = open_enlarger(model, factor, tile)
    bare = BareNcnn(model, factor)
    windows = [part.window for part in tiles(side, side, tile, enlarger.reach)]
    enlarger.enlarge(picture[:32, :32])
    bare(picture[:32, :32])
    ours, same, whole = fastest(
        lambda: enlarger.enlarge(picture),
        lambda: [bare(picture[window]) for window in windows],
        lambda: bare(picture),
    )
    return {
        "side": side,
        "tile": tile,
        "ratio": round(same / ours, 3),
        "ratio_to_untiled": round(whole / ours, 3),
        "seconds_per_megapixel": round(ours / side**2 * 1e6, 2),
    }


def memory() -> dict[str, float]:
    """Peak at 4096 px a side over that at 1024 px plus the two pictures."""
    small, large = (
        [
            float(word)
            for word in subprocess.run(
                [sys.executable, "-c", PEAK, str(side)], capture_output=True, text=True, check=True
            ).stdout.split()
        ]
        for side in (1024, 4096)
    )
    return {
        "peak_mib_1024": round(small[0] / 2**20),
        "peak_mib_4096": round(large[0] / 2**20),
        "seconds_4096": round(large[2], 1),
        "ratio": round(large[0] / (small[0] + large[1]), 3),
    }


def main() -> None:
    """Measure, print, and fail below the bars."""
    found: dict[str, Any] = {
        "benchmark": "upscale",
        "photo": throughput("photo", 4, side=96, tile=256),
        "video": throughput("video", 2, side=320, tile=256),
    }
    passed = all(found[model]["ratio"] >= BAR for model in ("photo", "video"))
    if "--memory" in sys.argv:
        found["memory"] = memory()
        passed = passed and found["memory"]["ratio"] <= MEMORY_BAR
    sys.stdout.write(json.dumps({**found, "passed": passed}) + "\n")
    sys.exit(not passed)


if __name__ == "__main__":
    main()
