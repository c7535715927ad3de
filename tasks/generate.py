"""The generate stage: text to image."""

from pydantic import Field

from safelight.engines.interface import DrawRequest, Draws
from safelight.media.canvas import on_canvas
from safelight.store.artifact import ArtifactRef
from tasks.base.calling import serving
from tasks.base.sampling import SamplingParams, guides_of, keep_drawn, prompt_fields
from tasks.base.stage import stage


class GenerateParams(SamplingParams):
    """What to draw and at which size."""

    width: int = Field(default=512, ge=64, le=4096, multiple_of=8)
    """Pixels."""
    height: int = Field(default=512, ge=64, le=4096, multiple_of=8)
    """Pixels."""
    canvas_width: int | None = Field(default=None, ge=64, le=4096)
    """Pixels of a result that is wider than what the model draws: its border goes on."""
    canvas_height: int | None = Field(default=None, ge=64, le=4096)
    """The same for a taller one: models made for squares draw things twice in other shapes."""


def _request(params: GenerateParams) -> DrawRequest:
    return DrawRequest(**prompt_fields(params), width=params.width, height=params.height)


@stage(
    reads={},
    makes="image",
    origin="creates",
    needs=lambda params, _: (_request(params),),
)
def generate(params: GenerateParams) -> list[ArtifactRef]:
    """Draw pictures from a prompt.

    Args:
        params: prompt, seed, size and model.

    Returns:
        `num_images` new artifacts, (height, width, 3) uint8 sRGB PNG, on the canvas where one is
        given.

    Raises:
        MissingRequiredFieldError: there is no seed.
        DependencyMissingError: a model, LoRA, embedding or adapter is missing.
        InvalidMediaError: the model's files cannot be loaded.
        OutOfMemoryError: too little memory even with everything moved off the device (retried).
    """
    guides = guides_of(params, params.width, params.height)
    pictures = serving(Draws).draw(_request(params), guides)
    wide, tall = params.canvas_width or params.width, params.canvas_height or params.height
    shown = [on_canvas(each, wide, tall) for each in pictures.pixels]
    return keep_drawn(shown, params, [], pictures.sampler)
