"""The sample stage: pictures by what was learnt."""

from pydantic import Field

from safelight.engines.training import Trains
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.calling import serving
from tasks.base.keeping import keep_image, record_of
from tasks.base.stage import stage
from tasks.training.asked import TrainParams, request_of


class SampleParams(TrainParams):
    """What is drawn."""

    prompts: tuple[str, ...] = Field(min_length=1, max_length=64)
    """One picture each."""


@stage(
    reads={"trained": ("other",)},
    makes="image",
    origin="creates",
    needs=lambda params, _: (request_of(params),),
)
def sample(trained: ArtifactRef, params: SampleParams) -> list[ArtifactRef]:
    """Draw by what was learnt, with the seed of all sample pictures.

    Args:
        trained: what `train` made.
        params: prompts, and what it was trained with.

    Returns:
        A new artifact each, (H, W, 3) uint8 sRGB of the model's own size.
    """
    request = request_of(params)
    path = current_store().fetch(trained)
    made = serving(Trains).draw_samples(request, path, params.prompts)
    return [keep_image(pixels, record_of(params, [])) for pixels in made]
