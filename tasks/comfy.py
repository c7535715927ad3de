"""The comfy stage: a workflow of ComfyUI, run on a ComfyUI server."""

import re
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Self

from prefect.context import FlowRunContext
from pydantic import Field

from safelight.engines.graphs import (
    GraphRequest,
    RunsGraphs,
    Scalar,
    graph_json,
    media_place,
    place_of,
    read_graph,
    with_values,
)
from safelight.errors import InvalidFieldValueError
from safelight.media.retagging import retagged
from safelight.params import Params, shown
from safelight.provenance.embed import video_tags
from safelight.provenance.png import png_bytes
from safelight.provenance.record import FileRecord
from safelight.store.artifact import ArtifactRef, MediaKind
from safelight.store.inputs import keep_media
from safelight.store.store import SCHEME, current_store
from safelight.workflows.files import read_workflow
from tasks.base.calling import serving
from tasks.base.ingest import ingest
from tasks.base.keeping import (
    is_animated,
    keep_changed,
    keep_image,
    load_layers,
    load_pixels,
    record_of,
)
from tasks.base.stage import cache_key, stage

_KEPT = re.compile(r"store:(uploads/([0-9a-f]{2})/(\2[0-9a-f]{62})\.json)")
KINDS: tuple[MediaKind, ...] = ("image", "video", "audio")
ANIMATIONS = "image/webp"
"""What animated pictures are kept as: lossless, and smaller than PNG."""


class ComfyParams(Params):
    """Which workflow, and what it is given."""

    workflow: str = Field(min_length=1, max_length=200)
    """NAME of a file `workflows/NAME.json` below the volume root, as ComfyUI exports it for its
    API; or the `store:` link of one."""
    inputs: dict[str, Scalar] = Field(default_factory=dict, max_length=1000)
    """Values by NODE.INPUT, where NODE is the id, the title or the type of a node."""
    picture_input: str = ""
    """NODE.INPUT that takes what the stage reads; empty is that of the only node that loads such a
    file."""
    media: dict[str, str] = Field(default_factory=dict, max_length=64)
    """Further files by NODE.INPUT: paths below the volume root, or `store:` links."""
    makes: Literal["image", "video", "audio", "all"] = "image"
    """Which of the files that it saves are its result; others are left aside, with a note."""

    def located(self, keep: Callable[[str], str]) -> Self:
        """With the workflow and the files as links to what they hold now."""
        del keep
        media = {at: ingest(place, KINDS).uri for at, place in self.media.items()}
        workflow = self.workflow
        if not workflow.startswith(SCHEME):
            kept = current_store().put(_text_of(self), "application/json", folder="uploads")
            workflow = kept.uri
        return self.model_copy(update={"workflow": workflow, "media": media})


def _text_of(params: ComfyParams) -> bytes:
    """The workflow as its file holds it."""
    if not params.workflow.startswith(SCHEME):
        return read_workflow(params.workflow)
    named = _KEPT.fullmatch(params.workflow)
    if named is None:
        raise InvalidFieldValueError(
            f"workflow is {shown(params.workflow)}, no link of a kept workflow",
            "name a file in workflows, or a link that a manifest names",
        )
    return current_store().read(
        ArtifactRef(uri=params.workflow, sha256=named[3], media_type="application/json", bytes=0)
    )


def _request(params: ComfyParams, sources: Sequence[ArtifactRef]) -> GraphRequest:
    graph = read_graph(_text_of(params), params.workflow)
    given = {place_of(graph, name, params.workflow): value for name, value in params.inputs.items()}
    media = [
        media_place(graph, params.picture_input, params.workflow, each.kind) for each in sources
    ]
    media += [place_of(graph, name, params.workflow) for name in params.media]
    if len({*media, *given}) < len(media) + len(given):
        raise InvalidFieldValueError(
            "two values or files are given to one input of a node", "name each input once"
        )
    filled = with_values(graph, given)
    return GraphRequest(
        workflow=params.workflow,
        graph=graph_json(filled),
        given=tuple(given),
        media=tuple(media),
        makes=KINDS if params.makes == "all" else (params.makes,),
    )


@stage(
    reads={"picture": KINDS},
    makes="stated",
    origin="creates",
    needs=lambda params, sources: (_request(params, sources),),
    optional=True,
)
def comfy(picture: ArtifactRef | None, params: ComfyParams) -> list[ArtifactRef]:
    """Run a workflow on the ComfyUI server of the settings.

    Args:
        picture: a picture, video or sound for a node that loads one; None for workflows that need
            none.
        params: the workflow and what it is given.

    Returns:
        A new artifact for each file that it saved, pictures as PNG, with the texts `prompt` and
        `workflow` as ComfyUI wrote them.

    Raises:
        MissingFileError: there is no such workflow.
        ContractMismatchError: it has no such node or input, or a value does not fit.
        DependencyMissingError: no server is named or it is too old, or a model or a type of node
            is missing there.
        EngineOfflineError: the server is away (retried).
        EngineTimeoutError: the workflow stands still (retried).
    """
    read = [] if picture is None else [picture]
    request = _request(params, read)
    sources = [*read, *(ingest(place, KINDS) for place in params.media.values())]
    record = record_of(params, sources)
    run = FlowRunContext.get()
    whose = run.flow_run.id if run is not None and run.flow_run is not None else uuid.uuid4()
    job = f"{whose}/{cache_key(comfy, [picture, params])}"
    with current_store().workspace() as folder:
        sent = [_sent(each, Path(folder) / f"sent-{n}") for n, each in enumerate(sources)]
        made = Path(folder) / "made"
        made.mkdir()
        paths = serving(RunsGraphs).run_graph(request, sent, job, made)
        return [_kept(path, record) for path in paths]


def _sent(source: ArtifactRef, at: Path) -> Path:
    """The file that the server gets: of a still picture its pixels alone."""
    if source.kind != "image" or is_animated(source):
        return current_store().fetch(source)
    at = at.with_suffix(".png")
    at.write_bytes(png_bytes(load_pixels(source), ()))
    return at


def _kept(path: Path, record: FileRecord) -> ArtifactRef:
    """What the server saved, with our record beside the texts that ComfyUI wrote."""
    found = keep_media(path, KINDS)
    if found.kind == "image":
        if is_animated(found):
            return keep_changed(found, record, lambda frames: frames, ANIMATIONS)
        layers = load_layers(found)
        return keep_image(layers.colours, record, like=layers)
    target = path.with_name(f"tagged-{path.stem}{found.extension}")
    retagged(path, target, video_tags(record))
    return current_store().put(
        target,
        found.media_type,
        width=found.width,
        height=found.height,
        frames=found.frames,
        fps=found.fps,
    )
