"""The transform stage: image to image."""

from pydantic import Field

from safelight.engines.interface import RedrawRequest, Redraws
from safelight.media.fitting import require_multiple
from safelight.store.artifact import ArtifactRef
from tasks.base.calling import serving
from tasks.base.keeping import load_image
from tasks.base.sampling import SamplingParams, guides_of, keep_drawn, prompt_fields
from tasks.base.stage import stage


class TransformParams(SamplingParams):
    """What to make of the picture."""

    strength: float = Field(default=0.6, ge=0, le=1)
    """0 gives the picture back, 1 keeps nothing but its size."""


def _request(params: TransformParams) -> RedrawRequest:
    return RedrawRequest(**prompt_fields(params), strength=params.strength)


@stage(
    reads={"picture": ("image",)},
    makes="image",
    origin="creates",
    needs=lambda params, _: (_request(params),),
)
def transform(picture: ArtifactRef, params: TransformParams) -> list[ArtifactRef]:
    """Draw over a stored picture.

    Args:
        picture: (H, W, 3) uint8 sRGB, sides multiples of 8.
        params: prompt, seed and strength.

    Returns:
        `num_images` new artifacts of the same size.

    Raises:
        InvalidFieldValueError: a side is no multiple of 8.
        As `generate`.
    """
    image = load_image(picture)
    require_multiple(image, 8, "transform")
    guides = guides_of(params, image.shape[1], image.shape[0])
    pictures = serving(Redraws).redraw(_request(params), image, guides)
    return keep_drawn(pictures.pixels, params, [picture], pictures)
