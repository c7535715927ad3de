"""The grade stage: colour, tone and grain of a picture or a video."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from safelight.engines.identity import EngineIdentity
from safelight.media.colour import grade_colour, to_linear
from safelight.media.images import to_float, to_uint8
from safelight.media.noise import add_grain, grain_field
from safelight.media.tone import log_average, map_tones
from safelight.media.video import map_frames
from safelight.params import Params
from safelight.progress import step
from safelight.provenance.embed import video_tags
from safelight.store.artifact import ArtifactRef
from safelight.store.store import Pixels, current_store
from tasks.keeping import keep_image, keep_video, load_image, record_of
from tasks.stage import stage

REVISION = "1"
"""Raised when the arithmetic changes, so that no older result is taken for a new one."""
AVERAGE_STRIDE = 4
"""Every fourth row and column is enough for the average of a picture."""


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
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Draws the grain; frame n of a video takes the n-th draw of it."""

    @property
    def changes_nothing(self) -> bool:
        """Whether the result is the input."""
        coloured = self.colour != "none" and self.colour_strength > 0
        return not (coloured or self.tone > 0 or self.grain > 0)


def _identity(params: GradeParams) -> EngineIdentity:
    del params
    return EngineIdentity(engine_id="numpy", version=f"{np.__version__}+{REVISION}")


@stage(takes=("image", "video"), gives="same", identity=_identity)
def grade(picture: ArtifactRef, params: GradeParams) -> ArtifactRef:
    """Grade one stored picture, or a video frame by frame with its sound.

    Colour comes first, then tone, then grain, as in a film laboratory.

    Args:
        picture: (H, W, 3) uint8 sRGB, or a video.
        params: look, tone and grain.

    Returns:
        A new artifact of the same size; the input itself when nothing is to change.

    Raises:
        InvalidMediaError: the artifact is not a picture or video that can be decoded.
    """
    if params.changes_nothing:
        return picture
    record = record_of("grade", params, _identity(params), [picture])
    if picture.kind == "image":
        graded = graded_frame(load_image(picture), params, 0)
        step(1, 1)
        return keep_image(graded, record)
    store = current_store()
    with store.workspace() as folder:
        path = Path(folder) / "graded"
        made = map_frames(store.fetch(picture), path, _frames(params), video_tags(record))
        return keep_video(
            path,
            width=made.width,
            height=made.height,
            frames=made.frames,
            fps=float(made.fps),
            media_type=made.media_type,
        )


def graded_frame(pixels: Pixels, params: GradeParams, frame: int) -> Pixels:
    """One picture graded; `frame` numbers the draws of grain."""
    values = to_float(pixels)
    if params.colour != "none":
        values = grade_colour(values, params.colour, params.colour_strength)
    if params.tone > 0:
        seen = to_linear(values[::AVERAGE_STRIDE, ::AVERAGE_STRIDE])
        values = map_tones(values, params.tone, log_average(seen))
    if params.grain > 0:
        height, width = pixels.shape[:2]
        seed = int(np.random.SeedSequence([params.seed, frame]).generate_state(1)[0])
        values = add_grain(values, params.grain, grain_field(height, width, seed))
    return to_uint8(values)


def _frames(params: GradeParams) -> Callable[[Pixels], Pixels]:
    count = 0

    def next_frame(pixels: Pixels) -> Pixels:
        nonlocal count
        count += 1
        return graded_frame(pixels, params, count - 1)

    return next_frame
