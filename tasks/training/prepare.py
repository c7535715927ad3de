"""The prepare stage: pictures and captions as a network reads them."""

from pathlib import Path

from pydantic import Field

from safelight.engines.training import (
    DatasetOptions,
    Example,
    TrainingOptions,
    TrainRequest,
    Trains,
)
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.calling import serving
from tasks.base.keeping import load_image
from tasks.base.stage import stage
from tasks.training.files import TENSORS


class PrepareParams(DatasetOptions):
    """Which captions, and how pictures are prepared."""

    model: str | None = Field(default=None, min_length=1, max_length=200)
    """Name of the model that is to learn them; None is the first of the models folder."""
    captions: tuple[str, ...]
    """Of the pictures, in order."""
    repeats: int = Field(default=1, ge=1, le=10_000)
    """How often each picture is taken an epoch."""
    cache_text: bool = True
    """Whether captions are encoded too."""
    seed: int | None = None
    """Of the pictures that the model draws itself."""


def request_of(params: PrepareParams) -> TrainRequest:
    """What the engine is asked for."""
    options = {name: getattr(params, name) for name in DatasetOptions.model_fields}
    return TrainRequest(
        params.model,
        DatasetOptions(**options),
        TrainingOptions(cache_text_encoder_outputs=params.cache_text),
        params.seed or 0,
    )


@stage(
    reads={"pictures": ("image",)},
    makes="other",
    origin="enhances",
    needs=lambda params, _: (request_of(params),),
)
def prepare(pictures: list[ArtifactRef], params: PrepareParams) -> ArtifactRef:
    """Encode pictures and captions once, for all trainings that read them.

    Args:
        pictures: (H, W, 3) uint8 sRGB each.
        params: captions, sizes, and what the model draws itself.

    Returns:
        A new artifact, a file of tensors.

    Raises:
        DependencyMissingError: the model is missing.
        OutOfMemoryError: the model does not fit.
    """
    request = request_of(params)
    examples = [
        Example(load_image(picture), caption, params.repeats)
        for picture, caption in zip(pictures, params.captions, strict=True)
    ]
    store = current_store()
    with store.workspace() as folder:
        target = Path(folder) / "dataset"
        serving(Trains).encode_dataset(request, examples, target)
        return store.put(target, TENSORS)
