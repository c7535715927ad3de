"""The train stage: a LoRA learnt from a prepared dataset."""

from pathlib import Path

from safelight.engines.training import Trains
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.calling import serving
from tasks.base.stage import cache_key, stage
from tasks.training.asked import TrainParams, request_of
from tasks.training.board import TrainingBoard
from tasks.training.files import TENSORS


@stage(
    reads={"dataset": ("other",)},
    makes="other",
    origin="creates",
    needs=lambda params, _: (request_of(params),),
)
def train(dataset: ArtifactRef, params: TrainParams) -> ArtifactRef:
    """Train to the end, from the last checkpoint of an interrupted training like this one.

    Args:
        dataset: what `prepare` made.
        params: how.

    Returns:
        A new artifact, a file of tensors: what was learnt, and all losses.

    Raises:
        StopRequestedError: the run was asked to stop; a checkpoint of where it was is kept.
        OutOfMemoryError: not even one picture fits into the device's memory.
    """
    request = request_of(params)
    store = current_store()
    board = TrainingBoard(store, cache_key(train, [dataset, params]), dataset.sha256)
    with store.workspace() as folder, board as course:
        target = Path(folder) / "trained"
        serving(Trains).train(request, store.fetch(dataset), course, target)
        return store.put(target, TENSORS)
