"""The refine stage: a second pass at low strength, at the same or a higher size."""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import RedrawRequest, Redraws
from safelight.errors import InvalidFieldValueError
from safelight.media.fitting import resized
from safelight.media.images import rounded
from safelight.params import Params, Seed
from safelight.pixels import Pixels
from safelight.store.artifact import ArtifactRef
from safelight.weights.checkpoints import WeightsCard, find_checkpoint
from tasks.base.calling import serving
from tasks.base.keeping import keep_image, load_layers, record_of
from tasks.base.sampling import Prompt, SamplingParams, guides_of, is_none, prompt_fields
from tasks.base.sizing import is_small
from tasks.base.stage import stage

GRID = 8


class RefineParams(Params):
    """How much detail to add and how much larger to make the picture ("hires fix")."""

    prompt: Prompt = Field(default="", max_length=2000)
    """What the picture shows; the same as when it was drawn works best."""
    negative_prompt: str = Field(default="", max_length=2000)
    """What it must not show."""
    seed: Seed = None
    """Same seed, same picture."""
    refinement_level: float = Field(default=0.3, ge=0, le=1)
    """Share of the drawing that is done again: 0 only enlarges, above 0.5 it becomes another."""
    steps: int = Field(default=20, ge=1, le=150)
    """Denoising steps of a whole drawing; refinement_level of them are taken."""
    guidance_scale: float = Field(default=7.5, ge=0, le=30)
    """How closely to follow the prompt."""
    scale: float = Field(default=1.0, ge=1, le=4)
    """Enlargement before the pass, along each side; the result's sides must be multiples of 8."""
    model: str | None = None
    """Name of a model in the models folder, for instance an SDXL refiner."""
    scheduler: str | None = None
    """As for generate."""
    clip_skip: int | None = Field(default=None, ge=1, le=12, exclude_if=is_none)
    """As for generate."""

    @property
    def sampling(self) -> SamplingParams:
        """The same for the engine; a picture can be refined without words."""
        return SamplingParams(
            prompt=self.prompt or " ",
            negative_prompt=self.negative_prompt,
            seed=self.seed,
            steps=self.steps,
            guidance_scale=self.guidance_scale,
            model=self.model,
            scheduler=self.scheduler,
            clip_skip=self.clip_skip,
        )


def _request(params: RefineParams) -> RedrawRequest:
    return RedrawRequest(**prompt_fields(params.sampling), strength=params.refinement_level)


def _needs(params: RefineParams, _: Sequence[ArtifactRef]) -> tuple[RedrawRequest, ...]:
    return (_request(params),) if params.refinement_level > 0 else ()


def _identity(params: RefineParams, engines: Sequence[EngineIdentity]) -> EngineIdentity:
    del params
    return engines[0] if engines else EngineIdentity(engine_id="lanczos", version="1")


@stage(
    reads={"picture": ("image",)},
    makes="image",
    origin="redraws",
    needs=_needs,
    identity=_identity,
)
def refine(picture: ArtifactRef, params: RefineParams) -> ArtifactRef:
    """Add detail to a stored picture, enlarging it first if wished.

    Args:
        picture: (H, W, 3) uint8 sRGB.
        params: level, scale and prompt.

    Returns:
        A new artifact, `scale` times as wide and as high.

    Raises:
        InvalidFieldValueError: the enlarged sides are no multiples of 8.
        As `generate`.
    """
    layers = load_layers(picture)
    image = layers.colours
    height, width = (side * params.scale for side in image.shape[:2])
    if width % GRID or height % GRID:
        raise InvalidFieldValueError(
            f"refine: {image.shape[1]}x{image.shape[0]} px times {params.scale:g} is "
            f"{width:g}x{height:g} px, sides must be multiples of {GRID}",
            "choose another scale, or crop the picture before",
        )
    large = resized(image, int(width), int(height))
    if params.refinement_level > 0:
        large = _refined(large, params)
    record = record_of(params, [picture])
    return keep_image(large, record, like=layers)


def _refined(image: Pixels, params: RefineParams) -> Pixels:
    card = find_checkpoint(params.model)
    guides_of(params.sampling, image.shape[1], image.shape[0])  # refuses to draw without a seed
    redraws, request = serving(Redraws), _request(params)
    # models of few pixels see a large picture only in windows
    if is_small(card) and max(image.shape[:2]) > max(card.native_width, card.native_height):
        return _in_windows(image, redraws, request, card)
    return redraws.redraw(request, image).pixels[0]


def _in_windows(
    image: Pixels, redraws: Redraws, request: RedrawRequest, card: WeightsCard
) -> Pixels:
    """Overlapping windows of the model's size, blended with weights that fall to their edges."""
    side = min(card.native_width, card.native_height)
    total = np.zeros((*image.shape[:2], 3), np.float32)
    weights = np.zeros((*image.shape[:2], 1), np.float32)
    for top in _starts(image.shape[0], side):
        for left in _starts(image.shape[1], side):
            window = image[top : top + side, left : left + side]
            (drawn,) = redraws.redraw(request, np.ascontiguousarray(window)).pixels
            ramp = _ramp(window.shape[0])[:, None, None] * _ramp(window.shape[1])[None, :, None]
            total[top : top + side, left : left + side] += drawn * ramp
            weights[top : top + side, left : left + side] += ramp
    return rounded(total / weights)


def _starts(length: int, side: int) -> list[int]:
    """First pixels of windows that overlap by half and end with the picture."""
    if length <= side:
        return [0]
    return sorted({*range(0, length - side, side // 2), length - side})


def _ramp(length: int) -> np.ndarray:
    middle = (length - 1) / 2
    return (1 - np.abs(np.arange(length) - middle) / (middle + 1)).astype(np.float32)
