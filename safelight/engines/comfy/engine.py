"""ComfyUI as an engine: runs workflows on the server that the settings name."""

import json
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, cast

from safelight.digests import sha256_of
from safelight.engines.comfy.checking import check, nodes_of
from safelight.engines.comfy.digests import model_digests
from safelight.engines.comfy.events import Events
from safelight.engines.comfy.following import StandsStillError, follow
from safelight.engines.comfy.instant_id import models_of_person
from safelight.engines.comfy.jobs import begun, cancel, submit
from safelight.engines.comfy.named import named_server, require_named
from safelight.engines.comfy.server import Facts, Server
from safelight.engines.comfy.templates import USUAL, checkpoint, drawn_by, refused
from safelight.engines.graphs import Graph, GraphRequest, graph_json, read_graph, with_values
from safelight.engines.identity import EngineIdentity
from safelight.engines.instant_id import InstantIdRequest
from safelight.engines.interface import (
    DrawRequest,
    Draws,
    LocalEngine,
    PromptRequest,
    RedrawRequest,
    Redraws,
    Refusal,
    Request,
)
from safelight.engines.results import NO_GUIDES, Guides, Pictures
from safelight.errors import (
    ContractMismatchError,
    InvalidMediaError,
    PipelineError,
)
from safelight.media.canvas import on_canvas
from safelight.media.fitting import resized
from safelight.media.images import decode_still
from safelight.media.layers import on_white
from safelight.pixels import Pixels
from safelight.progress import StopReason, StopRequestedError, note, stop_reason
from safelight.provenance.png import png_bytes
from safelight.settings import settings
from safelight.store.artifact import MediaKind

REVISION = 1
"""Raised when what is sent or taken back changes."""
SUBFOLDER = "safelight"
"""Of the server's folder of inputs, for files that are sent."""
MOST_FILES = 256
"""Of one run."""
ENDINGS: Mapping[MediaKind, tuple[str, ...]] = {
    "image": (".png", ".jpg", ".jpeg", ".webp", ".gif"),
    "video": (".mp4", ".webm", ".mkv", ".mov"),
    "audio": (".flac", ".mp3", ".wav", ".m4a", ".ogg", ".opus"),
}
"""Of files that workflows save."""


class Comfy(LocalEngine):
    """One ComfyUI server; nothing is charged, and it is somebody's own."""

    engine_id: ClassVar[str] = "local_comfy"
    reproducible: ClassVar[bool] = False  # nodes that people add may do anything
    only_where_named: ClassVar[tuple[type, ...]] = (Draws, Redraws)

    def can(self, request: Request) -> Refusal | None:
        """Whether a server is named, and a template draws what is asked for; it is not asked."""
        try:
            require_named()
        except PipelineError as error:
            if isinstance(request, InstantIdRequest):
                return type(error)(
                    f"a ComfyUI draws by InstantID, and {error.problem}", error.remedy
                )
            return error
        return refused(request) if isinstance(request, PromptRequest) else None

    def health_check(self) -> Refusal | None:
        """Whether the server answers, and is new enough."""
        try:
            with closing(named_server()) as server:
                server.facts()
        except PipelineError as error:
            return error
        return None

    def identity(self, request: Request) -> EngineIdentity:
        """Version and device of the server, and what is known of the models.

        Raises:
            PipelineError: the server is away, or too old, or has not the model.
        """
        with closing(named_server()) as server:
            facts = server.facts()
            model, graph = "", cast("Graph", {})
            if isinstance(request, PromptRequest):
                graph = drawn_by(server, replace(request, seed=request.seed or 0))
                named = (checkpoint(server, request), *models_of_person(graph))
                model = "".join(f":{each}" for each in named)
            elif isinstance(request, GraphRequest):
                graph = read_graph(request.graph, request.workflow)
        return EngineIdentity(
            engine_id=self.engine_id,
            version=f"{facts.shown}+{REVISION}{model}",
            device_class=facts.device,
            weights=model_digests(graph),
        )

    def draw(self, request: DrawRequest, guides: Guides = NO_GUIDES) -> Pictures:
        """See `Draws.draw`.

        Raises:
            PipelineError: as `run_graph`.
        """
        del guides  # those that need any are refused
        return _drawn(request, None)

    def redraw(self, request: RedrawRequest, image: Pixels, guides: Guides = NO_GUIDES) -> Pictures:
        """See `Redraws.redraw`.

        Raises:
            PipelineError: as `run_graph`.
        """
        del guides
        return _drawn(request, image)

    def draw_person(self, request: InstantIdRequest, photographs: Sequence[Pixels]) -> Pictures:
        """See `DrawsByInstantId.draw_person`.

        Raises:
            PipelineError: as `run_graph`.
        """
        # key points are drawn in the photograph, for a ControlNet that knows them at the result's
        # size; and whatever has another shape would lose its border
        return _drawn(request, None, [_in_frame(request, each) for each in photographs])

    def run_graph(
        self, request: GraphRequest, media: Sequence[Path], job: str, folder: Path
    ) -> tuple[Path, ...]:
        """See `RunsGraphs.run_graph`.

        Raises:
            StopRequestedError: the run was asked to stop; the workflow is taken from the server
                where it is not to go on elsewhere.
            PipelineError: see the functions that this is made of.
        """
        graph = read_graph(request.graph, request.workflow)
        with closing(named_server()) as server:
            facts = server.facts()
            check(server, graph, request.given, nodes_of(server, graph))
            sent = dict(zip(request.media, _uploaded(server, media), strict=True))
            filled = with_values(graph, sent)
            history = _ran(server, facts, filled, job)
            return _fetched(server, filled, history, folder, request.makes)


ENGINE = Comfy()


def _in_frame(request: InstantIdRequest, photograph: Pixels) -> Pixels:
    height, width = photograph.shape[:2]
    scale = min(request.width / width, request.height / height)
    sides = (max(1, round(width * scale)), max(1, round(height * scale)))
    return on_canvas(resized(photograph, *sides), request.width, request.height)


def _drawn(request: PromptRequest, image: Pixels | None, people: Sequence[Pixels] = ()) -> Pictures:
    """The pictures of a request, by the template for it; each call is a job of its own."""
    with (
        closing(named_server()) as server,
        tempfile.TemporaryDirectory(prefix="safelight-comfy-") as folder,
    ):
        sent: list[Path] = []
        for number, pixels in enumerate([*people] if image is None else [image, *people]):
            sent.append(Path(folder) / f"source-{number}.png")
            sent[-1].write_bytes(png_bytes(pixels, ()))
        names = list(_uploaded(server, sent))
        picture = "" if image is None else names.pop(0)
        graph = drawn_by(server, request, picture, names)
        history = _ran(server, server.facts(), graph, str(uuid.uuid4()))
        made = _fetched(server, graph, history, Path(folder), ("image",))
        pixels = tuple(on_white(decode_still(path.read_bytes()).pixels) for path in made)
    return Pictures(pixels, sampler=request.scheduler or USUAL)


def _uploaded(server: Server, media: Sequence[Path]) -> Iterator[str]:
    for file in media:
        name = f"{sha256_of(file)}{file.suffix}"
        yield server.patiently(lambda sent=file, at=name: server.upload(sent, at, SUBFOLDER))


def _ran(server: Server, facts: Facts, graph: Graph, job: str) -> Mapping[str, object]:
    prompt_id, found = begun(server, job)
    with closing(Events(server, prompt_id)) as events:
        events.next(0)  # opens it, so that no message is missed
        try:
            if found.where == "gone":
                submit(server, graph, json.loads(graph_json(graph)), prompt_id)
            else:
                note("the workflow was on the server already: its result is taken")
            return follow(server, graph, prompt_id, events, settings().comfy_stall_seconds)
        except StopRequestedError:
            # a run that another process takes up finds its prompt again
            if stop_reason() is StopReason.CANCEL:
                _taken_back(server, facts, prompt_id)
            raise
        except StandsStillError:
            _taken_back(server, facts, prompt_id)
            raise


def _taken_back(server: Server, facts: Facts, prompt_id: str) -> None:
    with suppress(PipelineError):  # a server that is away: why the run ends is said already
        cancel(server, prompt_id, facts.version)


def _fetched(
    server: Server,
    graph: Graph,
    history: Mapping[str, object],
    folder: Path,
    makes: tuple[MediaKind, ...],
) -> tuple[Path, ...]:
    found = list(_saved(graph, history))
    wanted = [each for each in found if _kind(each) in makes]
    kept = [each for each in wanted if each["type"] == "output"] or wanted
    if not kept:
        others = ", ".join(sorted({server.said(each["filename"]) for each in found})[:5])
        said = " or ".join("picture" if kind == "image" else kind for kind in makes)
        raise ContractMismatchError(
            f"the workflow saved no {said}{f', but {others}' if others else ''}",
            "give it a node that saves it, such as SaveImage or SaveVideo",
        )
    if len(kept) > MOST_FILES:
        raise InvalidMediaError(
            f"the workflow saved {len(kept)} files, at most {MOST_FILES} are taken",
            "let it save fewer at once",
        )
    if len(found) > len(kept):
        note(f"left aside of the workflow: {len(found) - len(kept)} files that are not its result")
    made: list[Path] = []
    for number, params in enumerate(kept):
        target = folder / f"{number:04}{Path(params['filename']).suffix.lower()}"
        kind = _kind(params)
        server.patiently(
            lambda what=params, to=target, of=kind: server.download(what, to, of or "image")
        )
        made.append(target)
    return tuple(made)


def _kind(saved: Mapping[str, str]) -> MediaKind | None:
    ending = Path(saved["filename"]).suffix.lower()
    return next((kind for kind, endings in ENDINGS.items() if ending in endings), None)


def _saved(graph: Graph, history: Mapping[str, object]) -> Iterator[dict[str, str]]:
    """Files that the nodes saved, as the server wants to be asked for them."""
    outputs = history.get("outputs")
    by_node = cast("dict[str, object]", outputs) if isinstance(outputs, dict) else {}
    known = [name for name in graph if name in by_node]
    for name in (*known, *(each for each in by_node if each not in graph)):
        node = by_node[name]
        for files in cast("dict[str, object]", node).values() if isinstance(node, dict) else ():
            for each in cast("list[object]", files) if isinstance(files, list) else ():
                file = cast("dict[str, object]", each) if isinstance(each, dict) else {}
                if isinstance(file.get("filename"), str):
                    yield {
                        "filename": str(file["filename"]),
                        "subfolder": str(file.get("subfolder") or ""),
                        "type": str(file.get("type") or "output"),
                    }
