"""Which files of models a workflow reads, where they lie on this machine: by their content."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from safelight.engines.comfy.refusals import MODEL_FILES
from safelight.engines.graphs import Graph
from safelight.settings import settings
from safelight.weights.hashing import weights_sha256

MODELS = "models"
"""Folder of a checkout."""


def model_digests(graph: Graph) -> tuple[str, ...]:
    """sha256 of each model that a workflow names and the checkout of the settings has.

    Nothing where the settings name no checkout: servers tell no digests.
    """
    known = settings().comfy_dir
    if known is None or not (known / MODELS).is_dir():
        return ()
    return tuple(weights_sha256(file) for file in _files(graph, known / MODELS))


def _files(graph: Graph, models: Path) -> Iterator[Path]:
    named = {
        value.replace("\\", "/")
        for node in graph.values()
        for value in node.inputs.values()
        if isinstance(value, str) and value.lower().endswith(MODEL_FILES)
    }
    for name in sorted(named):
        if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
            continue
        for folder in sorted(each for each in models.iterdir() if each.is_dir()):
            file = folder / name
            if file.is_file():
                yield file
