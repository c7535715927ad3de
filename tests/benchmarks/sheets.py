"""Sheets that show what enlarging does, for docs/images: `python -m tests.benchmarks.sheets`.

Columns: the original, bicubic, `enhance` at each level and the bare network of `high`, all at four
times the size of the source. Prints a row of docs/benchmarks.md for each photograph: its noise
floor, and that of each column over it. Photographs come with scikit-image (public domain or CC0).
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from safelight.engines.interface import EnlargeRequest
from safelight.engines.realesrgan.engine import ENGINE
from safelight.media.texture import kind_of, put_back
from safelight.media.video.stream import read_frames
from safelight.pixels import Pixels
from tasks.base.texturing import DRAWS_LINES
from tasks.enhance import RECIPES

CHECKOUT = Path(__file__).resolve().parents[2]
IMAGES = CHECKOUT / "docs" / "images"
FONT = CHECKOUT / "safelight" / "media" / "fonts" / "DejaVuSans.ttf"
SEEN, SHOWN, ZOOM = 144, 56, 4
"""Source px a side that are enlarged, those in the middle that are shown, and how large."""
COLUMNS = ("original", "bicubic", "low", "medium", "high", "bare network")
CAPTION, GAP = 22, 4
FLATTEST = 0.05
"""Part of a picture, where it changes least, in which its noise is measured."""
PHOTOGRAPHS: dict[str, tuple[str, int, int]] = {
    "portrait": ("astronaut", 60, 140),
    "cat": ("chelsea", 60, 130),
    "cup": ("coffee", 120, 200),
    "rocket": ("rocket", 180, 230),
    "camera": ("camera", 60, 180),
    "coins": ("coins", 60, 60),
    "stars": ("hubble_deep_field", 300, 300),
    "wall": ("brick", 100, 100),
    "flag": ("astronaut", 0, 300),
    "meadow": ("grass", 100, 100),
}
"""Name in scikit-image, top and left of what is enlarged."""
MEASURED_BESIDES = {"cat, behind it": ("chelsea", 144, 304)}
"""Photographs with a flat place elsewhere than in what is shown."""


def main() -> None:
    """Write both sheets and print the table."""
    photographs = {name: _photograph(*place) for name, place in PHOTOGRAPHS.items()}
    _say("photograph", "source, levels", *COLUMNS[1:])
    _say(*["---"] * (len(COLUMNS) + 1))
    rows: dict[str, list[Pixels]] = {}
    for name, source in photographs.items():
        rows[name] = versions(source)
        _say_floors(name, rows[name])
    for name, place in MEASURED_BESIDES.items():
        _say_floors(name, versions(_photograph(*place)))
    _keep(rows, "quality-photographs.webp")
    others = {"drawing": _drawing(), "text": _text(), "clip": _clip()}
    _keep({name: versions(source) for name, source in others.items()}, "quality-others.webp")


def versions(source: Pixels) -> list[Pixels]:
    """A source as each column has it, in that column's own size."""
    height, width = source.shape[:2]
    large = Image.fromarray(source).resize((width * ZOOM, height * ZOOM), Image.Resampling.BICUBIC)
    kind, _ = kind_of([source])
    made = [source, np.asarray(large)]
    bare = np.asarray(large)
    for recipe in RECIPES.values():
        bare = enlarged(source, recipe)
        strength = float(kind == "photograph")
        made.append(put_back(source, bare, strength, 0, lines=recipe.model in DRAWS_LINES))
    return [*made, bare]  # the last is that of `high`


def enlarged(source: Pixels, recipe: EnlargeRequest) -> Pixels:
    """What the network alone makes."""
    return ENGINE.open_enlarger(recipe).enlarge(source, lambda *_: None)


def noise_floors(made: list[Pixels]) -> list[float]:
    """Deviation of luminance in the flattest places of a source, of it and its enlargements.

    Waves longer than four source px do not count, whatever the size of the enlargement.
    """
    from scipy.ndimage import gaussian_filter

    source = _luminance(made[0])
    down, across = np.gradient(gaussian_filter(source, 1.5))
    slope = gaussian_filter(np.hypot(down, across), 3.0)  # crests of waves are not calm
    flat = slope < np.quantile(slope, FLATTEST)
    floors: list[float] = []
    for pixels in made:
        factor = len(pixels) // len(source)
        values = _luminance(pixels)
        fine = values - gaussian_filter(values, 2.0 * factor)
        floors.append(float(fine[flat.repeat(factor, 0).repeat(factor, 1)].std()))
    return floors


def _say_floors(name: str, made: list[Pixels]) -> None:
    floors = noise_floors(made)
    _say(name, f"{floors[0]:.2f}", *(f"{floor / floors[0]:.2f}" for floor in floors[1:]))


def _say(*cells: str) -> None:
    sys.stdout.write(f"| {' | '.join(cells)} |\n")
    sys.stdout.flush()


def _luminance(pixels: Pixels) -> NDArray[np.float64]:
    return pixels.astype(float) @ np.array([0.299, 0.587, 0.114])


def _photograph(name: str, top: int, left: int) -> Pixels:
    from skimage import data

    load = cast("Callable[[], Any]", getattr(data, name))
    pixels = np.asarray(Image.fromarray(load()).convert("RGB"))
    return pixels[top : top + SEEN, left : left + SEEN]


def _drawing() -> Pixels:
    page = Image.new("RGB", (SEEN * 4, SEEN * 4), "#f6e7c8")
    pen = ImageDraw.Draw(page)
    pen.ellipse((130, 140, 330, 330), "#e2714d", "#2b2b2b", 8)
    pen.polygon([(150, 190), (170, 100), (230, 150)], "#e2714d", "#2b2b2b", 8)
    pen.ellipse((180, 200, 210, 230), "#2b2b2b")
    pen.ellipse((250, 200, 280, 230), "#2b2b2b")
    pen.arc((190, 230, 270, 290), 20, 160, "#2b2b2b", 8)
    return np.asarray(page.resize((SEEN, SEEN), Image.Resampling.BOX))


def _text() -> Pixels:
    page = Image.new("RGB", (SEEN, SEEN), "white")
    pen = ImageDraw.Draw(page)
    for row, words in enumerate(
        ("enlarged", "from small", "letters: 10", "Qq Rr Ss &", "0123456789")
    ):
        pen.text((45, 44 + 12 * row), words, "black", ImageFont.truetype(str(FONT), 10))
    return np.asarray(page)


def _clip() -> Pixels:
    frame = next(iter(read_frames(CHECKOUT / "examples" / "box.mp4")))
    top, left = (frame.shape[0] - SEEN) // 2, (frame.shape[1] - SEEN) // 2
    return frame[top : top + SEEN, left : left + SEEN]


def _keep(rows: dict[str, list[Pixels]], name: str) -> None:
    cell = SHOWN * ZOOM
    size = len(COLUMNS) * (cell + GAP), len(rows) * (cell + GAP) + CAPTION
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.truetype(str(FONT), 14)
    for column, caption in enumerate(COLUMNS):
        pen.text((column * (cell + GAP) + 4, 2), caption, "black", font)
    for row, made in enumerate(rows.values()):
        for column, pixels in enumerate(made):
            factor = len(pixels) // SEEN
            margin = (SEEN - SHOWN) // 2 * factor
            shown = pixels[margin : margin + SHOWN * factor, margin : margin + SHOWN * factor]
            picture = Image.fromarray(shown).resize((cell, cell), Image.Resampling.NEAREST)
            sheet.paste(picture, (column * (cell + GAP), CAPTION + row * (cell + GAP)))
    sheet.save(IMAGES / name, "WEBP", quality=82, method=6)


if __name__ == "__main__":
    main()
