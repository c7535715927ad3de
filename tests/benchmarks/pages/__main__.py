"""Pictures for the pages of stages and presets: `python -m tests.benchmarks.pages [NAME ...]`.

Each shows what the stage or preset of its page makes of photographs that come with scikit-image
(public domain or CC0) and of the model of the checkout, in a volume of its own.
"""

import os
import sys
import tempfile
from pathlib import Path

from PIL import Image

from safelight.settings import settings
from safelight.store.store import current_store
from tests.benchmarks.pages.motion import MOTION
from tests.benchmarks.pages.people import PEOPLE
from tests.benchmarks.pages.stills import STILLS

IMAGES = Path(__file__).resolve().parents[3] / "docs" / "images"
QUALITY = 50
PAGES = STILLS | MOTION | PEOPLE


def main(names: list[str]) -> None:
    """Draw the pictures with these names, or all."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VOLUME_ROOT"] = folder
        os.environ["SAFELIGHT_DEVICE"] = "cpu"
        for name in names or PAGES:
            settings.cache_clear()
            current_store.cache_clear()
            sheet = PAGES[name]()
            path = IMAGES / f"{name}.webp"
            Image.fromarray(sheet).save(path, quality=QUALITY, method=6)
            size = path.stat().st_size
            sys.stdout.write(f"{name}: {sheet.shape[1]}x{sheet.shape[0]}, {size} bytes\n")


if __name__ == "__main__":
    main(sys.argv[1:])
