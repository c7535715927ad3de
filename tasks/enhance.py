"""The enhance stage: one step from a small or poor picture to a larger, cleaner one."""

from contextlib import closing
from typing import Literal

from pydantic import Field

from safelight.engines.interface import EnlargeRequest, Enlarges
from safelight.errors import InvalidFieldValueError
from safelight.media.images import inspect_image
from safelight.params import SEEDS, Params
from safelight.progress import note
from safelight.provenance.embed import LONGEST_SIDE
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.calling import serving
from tasks.base.keeping import is_animated, keep_changed, record_of
from tasks.base.stage import stage
from tasks.base.texturing import Texture, texture_of

Quality = Literal["low", "medium", "high"]


class EnhanceParams(Params):
    """How much time the result is worth."""

    quality_preset: Quality = "medium"
    """low: 2x in seconds. medium: 2x with detail redrawn. high: the same at 4x."""
    texture: float | None = Field(default=None, ge=0, le=1)
    """How much of the source's fine texture and grain is laid over the result again. None is 1 for
    photographs and 0 for drawings; the notes say which it was taken for, and why."""
    seed: int = Field(default=0, ge=0, le=SEEDS - 1)
    """Draws the grain of `texture`; frame n of an animation takes the n-th draw of it."""


TILE = 256
"""As `UpscaleParams.tile`; its default's reasons hold here."""
RECIPES: dict[Quality, EnlargeRequest] = {
    # The smallest network: 9 s a megapixel on two cores, for looking at many pictures at once.
    "low": EnlargeRequest("video", 2, TILE, 0.0),
    # The network for photographs redraws texture at 4x, averaged down to 2x: that hides what it
    # made up wrongly. It cleans as it goes; smoothing before would cost it real texture.
    "medium": EnlargeRequest("photo", 2, TILE, 0.0),
    # The same network at its own size. Smoothing before would cost hair and fur, whose strands are
    # as fine as noise; texture holds back what it makes of grain.
    "high": EnlargeRequest("photo", 4, TILE, 0.0),
}
"""What each quality preset stands for."""


@stage(
    reads={"picture": ("image",)},
    makes="image",
    origin="enhances",
    needs=lambda params, _: (RECIPES[params.quality_preset],),
    revision=3,
)
def enhance(picture: ArtifactRef, params: EnhanceParams) -> ArtifactRef:
    """Enlarge and clean one stored picture and keep its format.

    Args:
        picture: of any format that is read; its bytes tell which, whatever its name said. An
            animated one stays animated.
        params: the quality preset, and how much texture to keep.

    Returns:
        A new artifact of the same format, PNG for any but these three, 2 or 4 times as wide and as
        high. JPEG is written at quality 95 with full colour resolution under every preset, so that
        the file does not add the dirt that was just removed; PNG and WebP are lossless.

    Raises:
        InvalidMediaError: not such a picture.
        InvalidFieldValueError: the result would be larger than its format holds.
        OutOfMemoryError: no room for tiles of 64 px, or for the result.
    """
    recipe = RECIPES[params.quality_preset]
    media_type, width, height = inspect_image(current_store().read(picture))
    if media_type not in LONGEST_SIDE:
        kind = "an animated PNG" if is_animated(picture) else "PNG"
        note(f"{media_type} is read but not written: the result is {kind}")
        media_type = "image/png"
    longest, limit = max(width, height) * recipe.factor, LONGEST_SIDE[media_type]
    if longest > limit:
        raise InvalidFieldValueError(
            f"the result would be {longest} px long, {media_type} holds at most {limit} px a side",
            "set enhance.quality_preset to a lower one, or convert the picture to PNG",
        )
    texture = Texture(texture_of(params.texture, picture), params.seed, recipe.model)
    record = record_of(params.but(texture=texture.strength), [picture])
    with closing(serving(Enlarges).open_enlarger(recipe)) as enlarger:
        return keep_changed(
            picture,
            record,
            lambda frames: (
                texture.over(enlarger.enlarge(frame), frame, at) for at, frame in enumerate(frames)
            ),
            media_type,
        )
