"""The grade stage: colour, tone and grain of a picture or a video."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal

import numpy as np
from pydantic import Field

from safelight.engines.interface import ComputeRequest
from safelight.media.colour import grade_colour, to_linear
from safelight.media.images import to_float, to_uint8
from safelight.media.noise import add_grain
from safelight.media.tone import log_average, map_tones
from safelight.media.video.stream import read_frames
from safelight.params import SEEDS, Params
from safelight.pixels import Pixels
from safelight.progress import note, step
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.keeping import colours_of, is_animated, keep_changed, record_of
from tasks.base.resuming import resuming
from tasks.base.stage import cache_key, stage
from tasks.base.video_stage import transformed

REVISION = "3"
"""Raised when the arithmetic changes, so that no older result is taken for a new one."""
PIXEL_STRIDE, FRAME_STRIDE = 4, 8
"""Every fourth row and column, and every eighth frame, is enough for an average."""
BAND_PIXELS = 1 << 19
"""Pixels worked on at once: 6 MB for each array of floats."""


class GradeParams(Params):
    """The look of a picture; every strength of 0 leaves it as it is."""

    colour: Literal["none", "warm", "cool", "cinematic"] = "none"
    """warm and cool shift the white balance; cinematic is teal shadows and orange lights."""
    colour_strength: float = Field(default=1.0, ge=0, le=1)
    """0 is none of the look, 1 all of it."""
    tone: float = Field(default=0.0, ge=0, le=1)
    """Strength of Reinhard tone mapping: opens shadows, lets highlights roll off."""
    grain: float = Field(default=0.0, ge=0, le=1)
    """Strength of the film grain; 0.25 is a fine stock, 1 a pushed one."""
    film: Literal["35mm", "16mm", "8mm"] = "16mm"
    """What the grain lies in; it is the larger the smaller the film."""
    seed: int = Field(default=0, ge=0, le=SEEDS - 1)
    """Draws the grain; frame n of a video takes the n-th draw of it."""

    @property
    def changes_nothing(self) -> bool:
        """Whether the result is the input."""
        coloured = self.colour != "none" and self.colour_strength > 0
        return not (coloured or self.tone > 0 or self.grain > 0)


@stage(
    reads={"picture": ("image", "video")},
    makes="same",
    origin="enhances",
    needs=lambda *_: (ComputeRequest(REVISION),),
    revision=2,
)
def grade(picture: ArtifactRef, params: GradeParams) -> ArtifactRef:
    """Grade one stored picture, or a video frame by frame with its sound.

    Colour comes first, then tone, then grain, as in a film laboratory.

    Args:
        picture: a still or an animated picture, or a video.
        params: look, tone and grain.

    Returns:
        A new artifact of the same size; the input itself when nothing is to change.

    Raises:
        InvalidMediaError: the artifact is not a picture or video that can be decoded.
    """
    if params.changes_nothing:
        note("every strength is 0: there is nothing to grade")
        return picture
    record = record_of(params, [picture])
    if picture.kind != "video":
        every = FRAME_STRIDE if is_animated(picture) else 1
        average = _average(islice(colours_of(picture), None, None, every)) if params.tone else 1

        def graded(frames: Iterator[Pixels]) -> Iterator[Pixels]:
            for at, pixels in enumerate(frames):
                yield graded_frame(pixels, params, at, average)
                step(1, 1)

        # a look that was asked for may colour a grey picture
        return keep_changed(picture, record, graded, stays_grey=params.colour == "none")
    # one average for the whole clip: one for each frame would make the tones flicker
    sampled = islice(read_frames(current_store().fetch(picture)), None, None, FRAME_STRIDE)
    average = _average(sampled) if params.tone else 1
    key = cache_key(grade, [picture, params])
    return transformed(
        picture,
        record,
        resuming(key, graded_frame),
        lambda graded, frames: (
            graded(pixels, params, at, average) for at, pixels in enumerate(frames)
        ),
    )


def graded_frame(pixels: Pixels, params: GradeParams, frame: int, average: float) -> Pixels:
    """One picture graded, a band of rows at a time so that memory does not grow with it.

    Args:
        pixels: (H, W, 3) uint8 sRGB.
        params: look, tone and grain.
        frame: its number in a video; numbers the draws of grain.
        average: log-average luminance of the picture or of the whole video.
    """
    height, width = pixels.shape[:2]
    rows = max(BAND_PIXELS // width, 1)
    target = np.empty_like(pixels)
    for top in range(0, height, rows):
        values = to_float(pixels[top : top + rows])
        if params.colour != "none":
            values = grade_colour(values, params.colour, params.colour_strength)
        if params.tone > 0:
            values = map_tones(values, params.tone, average)
        if params.grain > 0:
            size = height, width
            values = add_grain(values, params.grain, params.seed, frame, size, top, params.film)
        target[top : top + rows] = to_uint8(values)
    return target


def _average(pictures: Iterable[Pixels]) -> float:
    """Log-average luminance of one picture or several."""
    logs = [
        np.log(log_average(to_linear(to_float(pixels[::PIXEL_STRIDE, ::PIXEL_STRIDE]))))
        for pixels in pictures
    ]
    return float(np.exp(np.mean(logs)))
