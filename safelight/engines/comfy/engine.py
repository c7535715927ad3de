"""ComfyUI as an engine: runs workflows on the server that the settings name."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import ClassVar, cast

from safelight.engines.comfy.checking import check, nodes_of
from safelight.engines.comfy.events import Events
from safelight.engines.comfy.following import StandsStillError, follow
from safelight.engines.comfy.jobs import begun, cancel, submit
from safelight.engines.comfy.named import named_server
from safelight.engines.comfy.server import Facts, Server
from safelight.engines.graphs import Graph, GraphRequest, graph_json, read_graph, with_values
from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import LocalEngine, Refusal, Request
from safelight.errors import (
    ContractMismatchError,
    InvalidMediaError,
    PipelineError,
)
from safelight.progress import StopReason, StopRequestedError, note, stop_reason
from safelight.settings import settings

REVISION = 1
"""Raised when what is sent or taken back changes."""
SUBFOLDER = "safelight"
"""Of the server's folder of inputs, for pictures that are sent."""
MOST_PICTURES = 256
"""Of one run."""
_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")


class Comfy(LocalEngine):
    """One ComfyUI server; nothing is charged, and it is somebody's own."""

    engine_id: ClassVar[str] = "local_comfy"
    reproducible: ClassVar[bool] = False  # nodes that people add may do anything

    def can(self, request: Request) -> Refusal | None:
        """Whether a server is named; it is not asked."""
        del request
        try:
            named_server().close()
        except PipelineError as error:
            return error
        return None

    def health_check(self) -> Refusal | None:
        """Whether the server answers, and is new enough."""
        try:
            with closing(named_server()) as server:
                server.facts()
        except PipelineError as error:
            return error
        return None

    def identity(self, request: Request) -> EngineIdentity:
        """Version and device of the server; it tells no digests of its models.

        Raises:
            PipelineError: the server is away, or too old.
        """
        del request
        with closing(named_server()) as server:
            facts = server.facts()
        return EngineIdentity(
            engine_id=self.engine_id,
            version=f"{facts.shown}+{REVISION}",
            device_class=facts.device,
        )

    def run_graph(
        self, request: GraphRequest, pictures: Sequence[bytes], job: str, folder: Path
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
            sent = dict(zip(request.pictures, _uploaded(server, pictures), strict=True))
            filled = with_values(graph, sent)
            history = _ran(server, facts, filled, job)
            return _fetched(server, filled, history, folder)


ENGINE = Comfy()


def _uploaded(server: Server, pictures: Sequence[bytes]) -> Iterator[str]:
    for content in pictures:
        name = f"{hashlib.sha256(content).hexdigest()}.png"
        yield server.patiently(lambda data=content, at=name: server.upload(data, at, SUBFOLDER))


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
    server: Server, graph: Graph, history: Mapping[str, object], folder: Path
) -> tuple[Path, ...]:
    found = list(_saved(graph, history))
    stills = [each for each in found if each["filename"].lower().endswith(_EXTENSIONS)]
    kept = [each for each in stills if each["type"] == "output"] or stills
    if not kept:
        others = ", ".join(sorted({server.said(each["filename"]) for each in found})[:5])
        raise ContractMismatchError(
            f"the workflow saved no picture{f', but {others}' if others else ''}",
            "give it a node that saves pictures, such as SaveImage",
        )
    if len(kept) > MOST_PICTURES:
        raise InvalidMediaError(
            f"the workflow saved {len(kept)} pictures, at most {MOST_PICTURES} are taken",
            "let it save fewer at once",
        )
    if len(found) > len(kept):
        note(f"left aside of the workflow: {len(found) - len(kept)} files that are not its result")
    made: list[Path] = []
    for number, params in enumerate(kept):
        target = folder / f"{number:04}{Path(params['filename']).suffix.lower()}"
        server.patiently(lambda what=params, to=target: server.download(what, to))
        made.append(target)
    return tuple(made)


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
