"""Pages of what makes and changes videos."""

from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image
from skimage import data

from flows.color_grade_film_grain_v1 import color_grade_film_grain_v1
from flows.image_to_video_v1 import image_to_video_v1
from flows.upscale_deflicker_video_v1 import upscale_deflicker_video_v1
from safelight.media.sheets import PAPER, contact_sheet
from safelight.pixels import Pixels
from tasks.animate import AnimateParams, animate
from tasks.deflicker import DeflickerParams, deflicker
from tasks.interpolate import InterpolateParams, interpolate
from tests.benchmarks.pages.materials import (
    Cells,
    filmed,
    flickering,
    frames_of,
    moments,
    ran,
    stored,
)


def _interpolate() -> Pixels:
    wall, cat = data.brick()[:128, :192, None].repeat(3, axis=2), data.chelsea()[70:150, 150:250]

    def shown() -> Iterable[Pixels]:
        for at in range(4):
            frame = wall.copy()
            frame[24:104, 8 + 24 * at : 108 + 24 * at] = cat
            yield frame

    source = filmed(shown())
    made = frames_of(interpolate.fn(source, InterpolateParams(target_fps=120)))
    first, last = made[5], made[10]
    mean = ((first.astype(int) + made[10]) // 2).astype(np.uint8)
    cells: Cells = [
        ("frame of the source", first),
        ("made, 2/5", made[7]),
        ("made, 3/5", made[8]),
        ("next of the source", last),
        ("plain mean", mean),
    ]
    return contact_sheet(cells, 5, 160, lines=1)


def _color_grade() -> Pixels:
    ground = data.rocket()[100:316:2, 120:440:2]

    def shown() -> Iterable[Pixels]:
        for at in range(4):
            yield np.roll(ground, -2 * at, axis=1)

    source = filmed(shown())
    cells: Cells = [("source", frames_of(source)[2])]
    for quality in ("low", "standard", "pro"):
        (made,) = ran(color_grade_film_grain_v1, video=source.uri, quality=quality, seed=3)
        cells.append((quality, frames_of(made)[2]))
    return contact_sheet(cells, 4, 160, lines=1)


def _deflicker() -> Pixels:
    before = flickering()
    after = deflicker.fn(before, DeflickerParams())
    cells: Cells = []
    slits: list[Pixels] = []
    for text, ref in (("before", before), ("after", after)):
        shown = frames_of(ref)
        cells += [(f"{text}, frame {at}", shown[at]) for at in range(8, 48, 8)]
        # one column of each frame, side by side: what stands still is a line, flicker is stripes
        slits.append(np.stack([frame[:, 150] for frame in shown], axis=1).repeat(12, axis=1))
    thumbnails = contact_sheet(cells, 5, 144, lines=1)
    bands = [np.asarray(Image.fromarray(slit).resize((thumbnails.shape[1], 96))) for slit in slits]
    gap = np.full((6, thumbnails.shape[1], 3), PAPER, np.uint8)
    return np.concatenate([thumbnails, bands[0], gap, bands[1]])


def _upscale_deflicker() -> Pixels:
    source = flickering(16, size=64)
    cells: Cells = []
    for quality in ("source", "low", "standard", "pro"):
        (made,) = (
            (source,)
            if quality == "source"
            else ran(upscale_deflicker_video_v1, video=source.uri, quality=quality)
        )
        shown = frames_of(made)
        side = len(shown[0])
        # one column of each frame beside those of the others: flicker is stripes
        slit = np.stack([frame[:, side // 3] for frame in shown], axis=1)
        cells.append((f"{quality}, {side} px", _square(shown[0])))
        cells.append((f"{len(shown)} frames", _square(slit)))
    return contact_sheet(cells, 8, 128, lines=1)


def _square(pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((128, 128), Image.Resampling.NEAREST))


def _animate() -> Pixels:
    picture = stored(data.astronaut()[0:288, 0:512])
    cells: Cells = []
    for camera in ("zoom_in", "pan_right", "parallax"):
        params = AnimateParams.model_validate({"duration": 2.0, "motion": 1.0, "camera": camera})
        cells += moments(animate.fn(picture, params), camera)
    return contact_sheet(cells, 3, 160, lines=1)


def _image_to_video() -> Pixels:
    picture = stored(data.chelsea()[0:288, 0:451])
    cells: Cells = []
    for quality in ("low", "standard"):
        (made,) = ran(image_to_video_v1, image=picture.uri, quality=quality, seed=7)
        cells += moments(made, quality)
    return contact_sheet(cells, 3, 160, lines=1)


MOTION: dict[str, Callable[[], Pixels]] = {
    "animate": _animate,
    "color_grade_film_grain_v1": _color_grade,
    "deflicker": _deflicker,
    "image_to_video_v1": _image_to_video,
    "interpolate": _interpolate,
    "upscale_deflicker_video_v1": _upscale_deflicker,
}
