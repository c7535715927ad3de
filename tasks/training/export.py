"""The export stage: what was learnt as a file that other programs read."""

from pathlib import Path

from pydantic import Field

from safelight.engines.training import ExportFacts, Trains
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.calling import serving
from tasks.base.stage import stage
from tasks.training.asked import TrainParams, request_of
from tasks.training.files import TENSORS


class ExportParams(TrainParams):
    """What the file says about itself."""

    name: str = Field(min_length=1, max_length=100)
    """Of the LoRA."""
    trigger: str = ""
    """The word for what it has learnt."""
    comment: str = Field(default="", max_length=2000)
    """For people."""
    licence: str | None = None
    """Of the model that it changes."""


@stage(
    reads={"trained": ("other",)},
    makes="other",
    origin="edits",
    needs=lambda params, _: (request_of(params),),
)
def export(trained: ArtifactRef, params: ExportParams) -> ArtifactRef:
    """Write a LoRA file.

    Args:
        trained: what `train` made.
        params: what the file says besides.

    Returns:
        A new artifact, a .safetensors file.
    """
    facts = ExportFacts(params.name, params.trigger, params.comment, params.licence)
    store = current_store()
    with store.workspace() as folder:
        target = Path(folder) / "lora"
        serving(Trains).export_lora(store.fetch(trained), facts, target)
        return store.put(target, TENSORS)
