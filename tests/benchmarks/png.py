"""Writing PNG with its record over Pillow at the same compression: CPU seconds, best of several."""

import io
import json
import time
from collections.abc import Callable

import numpy as np
from PIL import Image, PngImagePlugin
from skimage import data

from safelight.provenance.png import COMPRESS_LEVEL, png_bytes

SIDE, ROUNDS = 1024, 10
BAR = 0.8
"""More than this, and Pillow writes our files."""
TEXTS = [("parameters", "a red heart, Steps: 8, Sampler: euler, Seed: 7, " * 10)]


def main() -> dict[str, float]:
    """Measure and print one JSON line; exit status 1 above the bar."""
    small = Image.fromarray(data.astronaut())
    pixels = np.array(small.resize((SIDE, SIDE), Image.Resampling.LANCZOS))

    def ours() -> bytes:
        return png_bytes(pixels, TEXTS)

    def pillow() -> bytes:
        info, file = PngImagePlugin.PngInfo(), io.BytesIO()
        for keyword, text in TEXTS:
            info.add_text(keyword, text)
        Image.fromarray(pixels).save(file, "PNG", compress_level=COMPRESS_LEVEL, pnginfo=info)
        return file.getvalue()

    taken = [(_seconds(ours), _seconds(pillow)) for _ in range(ROUNDS)]
    own, theirs = (min(column) for column in zip(*taken, strict=True))
    measured = {
        "ours": round(own, 4),
        "pillow": round(theirs, 4),
        "ratio": round(own / theirs, 3),
        "size": round(len(ours()) / len(pillow()), 3),
    }
    print(json.dumps({"benchmark": "png", **measured}))  # noqa: T201
    return measured


def _seconds(work: Callable[[], bytes]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    raise SystemExit(main()["ratio"] > BAR)
