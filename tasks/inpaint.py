"""The inpaint stage: the white part of a mask painted anew."""

import numpy as np
from pydantic import Field

from safelight.engines.interface import FillRequest, Fills
from safelight.errors import InvalidFieldValueError
from safelight.media.filling import laid_in, on_black
from safelight.media.fitting import require_multiple
from safelight.store.artifact import ArtifactRef
from tasks.base.calling import serving
from tasks.base.keeping import load_image, load_pixels
from tasks.base.sampling import SamplingParams, guides_of, keep_drawn, prompt_fields
from tasks.base.stage import stage

WHITE = 128
"""Grey values from here on are repainted."""


class InpaintParams(SamplingParams):
    """What to paint into the hole."""

    strength: float = Field(default=1.0, ge=0, le=1)
    """0 gives the picture back, 1 ignores what was there."""
    mask_blur: int = Field(default=4, ge=0, le=64)
    """Feather along the edge of the mask, px; it lies inside the white part, where old and new are
    alike: nothing of what is to go shines through."""


def _request(params: InpaintParams) -> FillRequest:
    return FillRequest(**prompt_fields(params), strength=params.strength)


@stage(
    reads={"picture": ("image",), "mask": ("image",)},
    makes="image",
    origin="redraws",
    needs=lambda params, _: (_request(params),),
    revision=2,
)
def inpaint(picture: ArtifactRef, mask: ArtifactRef, params: InpaintParams) -> list[ArtifactRef]:
    """Repaint the white part of a mask; every pixel outside of it stays what it is.

    Args:
        picture: (H, W, 3) uint8 sRGB, sides multiples of 8.
        mask: picture of the same size, white is repainted, transparent and black are not.
        params: prompt, seed, strength and feather.

    Returns:
        `num_images` new artifacts of the same size.

    Raises:
        InvalidFieldValueError: sizes differ, or a side is no multiple of 8.
        As `generate`.
    """
    image, painted = load_image(picture), on_black(load_pixels(mask))
    require_multiple(image, 8, "inpaint")
    if image.shape != painted.shape:
        raise InvalidFieldValueError(
            f"inpaint: the mask is {painted.shape[1]}x{painted.shape[0]} px, "
            f"the picture {image.shape[1]}x{image.shape[0]}",
            "make the mask as large as the picture",
        )
    hole = np.where(painted.max(axis=2) >= WHITE, 255, 0).astype(np.uint8)
    if not hole.any() and load_pixels(mask).shape[2] == 4:
        raise InvalidFieldValueError(
            "inpaint: the mask has nothing white that is opaque: transparent counts as not painted",
            "paint white what is to be drawn anew, or save the mask without transparency",
        )
    guides = guides_of(params, image.shape[1], image.shape[0])
    drawn = serving(Fills).fill(_request(params), image, hole, guides)
    filled = [laid_in(image, pixels, hole > 0, params.mask_blur) for pixels in drawn.pixels]
    return keep_drawn(filled, params, [picture, mask], drawn)
