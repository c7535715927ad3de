"""A look into a file in the confined process over the same look here: milliseconds a file, best."""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from safelight.media.inspection import look_into_still, look_into_video, still_facts, walked

ROUNDS = 40
BAR = 5.0
"""Milliseconds that the confined process may add to a file."""
MEGAPIXELS = 100.0
CLIP = Path("examples/box.mp4")


def main() -> dict[str, float]:
    """Measure and print one JSON line; exit status 1 above the bar."""
    photo = Image.fromarray(data.astronaut())
    files = {
        "png_64": _saved(photo.resize((64, 64)), "PNG"),
        "png_512": _saved(photo, "PNG"),
        "jpeg_512": _saved(photo, "JPEG"),
        "png_2048_grey": _saved(Image.fromarray(np.zeros((2048, 2048), np.uint8)), "PNG"),
    }
    added = {
        name: _added(
            lambda file=file: look_into_still(file, MEGAPIXELS),
            lambda file=file: still_facts(file, MEGAPIXELS),
        )
        for name, file in files.items()
    }
    added["clip"] = _added(lambda: look_into_video(CLIP), lambda: walked(str(CLIP)))
    measured = {**added, "most": max(added.values())}
    print(json.dumps({"benchmark": "looking", **measured}))  # noqa: T201
    return measured


def _saved(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def _added(confined: Callable[[], object], here: Callable[[], object]) -> float:
    confined()  # the first one starts the process
    taken = [(_milliseconds(confined), _milliseconds(here)) for _ in range(ROUNDS)]
    theirs, ours = (min(column) for column in zip(*taken, strict=True))
    return round(theirs - ours, 2)


def _milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    raise SystemExit(main()["most"] > BAR)
