"""The comfy stage: a workflow of ComfyUI, run on a ComfyUI server."""

import re
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from prefect.context import FlowRunContext
from pydantic import Field

from safelight.engines.graphs import (
    GraphRequest,
    RunsGraphs,
    Scalar,
    graph_json,
    picture_place,
    place_of,
    read_graph,
    with_values,
)
from safelight.errors import InvalidFieldValueError, InvalidMediaError, MissingFileError
from safelight.params import Params, shown
from safelight.provenance.png import png_bytes
from safelight.settings import settings
from safelight.store.artifact import ArtifactRef
from safelight.store.inputs import keep_media
from safelight.store.opening import opened_below
from safelight.store.store import SCHEME, current_store
from tasks.base.calling import serving
from tasks.base.keeping import keep_image, load_layers, load_pixels, record_of
from tasks.base.stage import cache_key, stage

FOLDER = "workflows"
"""Of the volume root, with a file NAME.json for each workflow."""
LARGEST = 16 * 2**20
"""Bytes of a workflow."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,99}")
_KEPT = re.compile(r"store:(uploads/([0-9a-f]{2})/(\2[0-9a-f]{62})\.json)")


class ComfyParams(Params):
    """Which workflow, and what it is given."""

    workflow: str = Field(min_length=1, max_length=200)
    """NAME of a file `workflows/NAME.json` below the volume root, as ComfyUI exports it for its
    API; or the `store:` link of one."""
    inputs: dict[str, Scalar] = Field(default_factory=dict, max_length=1000)
    """Values by NODE.INPUT, where NODE is the id, the title or the type of a node."""
    picture_input: str = ""
    """NODE.INPUT that takes the picture; empty is that of the only node LoadImage."""

    def located(self, keep: Callable[[str], str]) -> Self:
        """With the workflow as a link to what its file holds now."""
        del keep
        if self.workflow.startswith(SCHEME):
            return self
        kept = current_store().put(_text_of(self), "application/json", folder="uploads")
        return self.model_copy(update={"workflow": kept.uri})


def _text_of(params: ComfyParams) -> bytes:
    """The workflow as its file holds it."""
    if params.workflow.startswith(SCHEME):
        named = _KEPT.fullmatch(params.workflow)
        if named is None:
            raise InvalidFieldValueError(
                f"workflow is {shown(params.workflow)}, no link of a kept workflow",
                "name a file in workflows, or a link that a manifest names",
            )
        return current_store().read(
            ArtifactRef(
                uri=params.workflow, sha256=named[3], media_type="application/json", bytes=0
            )
        )
    if _NAME.fullmatch(params.workflow) is None:
        raise InvalidFieldValueError(
            f"workflow is {shown(params.workflow)}, expected the name of a file in {FOLDER}: "
            "letters, digits, spaces, dots, _ and -",
            "put the file right into that folder, and name it without .json",
        )
    root = settings().volume_root.resolve()
    path = root / FOLDER / f"{params.workflow}.json"
    if not path.is_file():
        there = sorted(file.stem for file in (root / FOLDER).glob("*.json"))[:20]
        raise MissingFileError(
            f"there is no workflow {params.workflow!r} in {FOLDER} of the volume; there are "
            f"{', '.join(there) or 'none'}",
            "export it from ComfyUI with File > Export (API), and put it there",
        )
    with opened_below(root, path) as handle, open(handle, "rb", closefd=False) as file:
        text = file.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise InvalidMediaError(
            f"workflow {params.workflow} has more than {LARGEST // 2**20} MiB",
            "export it from ComfyUI again",
        )
    return text


def _request(params: ComfyParams, sources: Sequence[ArtifactRef]) -> GraphRequest:
    graph = read_graph(_text_of(params), params.workflow)
    given = {place_of(graph, name, params.workflow): value for name, value in params.inputs.items()}
    pictures = (picture_place(graph, params.picture_input, params.workflow),) if sources else ()
    filled = with_values(graph, given)
    return GraphRequest(
        workflow=params.workflow,
        graph=graph_json(filled),
        given=tuple(given),
        pictures=pictures,
    )


@stage(
    reads={"picture": ("image",)},
    makes="image",
    origin="creates",
    needs=lambda params, sources: (_request(params, sources),),
    optional=True,
)
def comfy(picture: ArtifactRef | None, params: ComfyParams) -> list[ArtifactRef]:
    """Run a workflow on the ComfyUI server of the settings.

    Args:
        picture: a still picture for a node that loads one; None for workflows that need none.
        params: the workflow and what it is given.

    Returns:
        A new artifact for each picture that it saved, PNG, with the texts `prompt` and `workflow`
        as ComfyUI wrote them.

    Raises:
        MissingFileError: there is no such workflow.
        ContractMismatchError: it has no such node or input, or a value does not fit.
        DependencyMissingError: no server is named or it is too old, or a model or a type of node
            is missing there.
        EngineOfflineError: the server is away (retried).
        EngineTimeoutError: the workflow stands still (retried).
    """
    sources = [] if picture is None else [picture]
    request = _request(params, sources)
    record = record_of(params, sources)
    sent = [png_bytes(load_pixels(each), ()) for each in sources]
    run = FlowRunContext.get()
    whose = run.flow_run.id if run is not None and run.flow_run is not None else uuid.uuid4()
    job = f"{whose}/{cache_key(comfy, [picture, params])}"
    made: list[ArtifactRef] = []
    with current_store().workspace() as folder:
        for path in serving(RunsGraphs).run_graph(request, sent, job, Path(folder)):
            layers = load_layers(keep_media(path, ("image",)))
            made.append(keep_image(layers.colours, record, like=layers))
    return made
