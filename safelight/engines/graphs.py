"""Workflows of ComfyUI as it exports them for its API: read, addressed, filled in.

What engines that run them are asked for stands here too: it is a part of
`safelight.engines.interface`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, cast, runtime_checkable

from pydantic import JsonValue

from safelight.engines.interface import Engine, Request
from safelight.errors import ContractMismatchError, InvalidFieldValueError
from safelight.params import shown
from safelight.store.artifact import MediaKind

Scalar = bool | int | float | str
"""What an input of a node may be given."""
LOADERS: Mapping[str, tuple[str, MediaKind]] = {
    "LoadImage": ("image", "image"),
    "LoadImageMask": ("image", "image"),
    "LoadVideo": ("file", "video"),
    "VHS_LoadVideo": ("video", "video"),
    "LoadAudio": ("audio", "audio"),
    "VHS_LoadAudioUpload": ("audio", "audio"),
}
"""Types of node that load a file of the server's input folder: by which input, and of what kind."""
MAIN_LOADERS: Mapping[MediaKind, tuple[str, ...]] = {
    "image": ("LoadImage",),
    "video": ("LoadVideo", "VHS_LoadVideo"),
    "audio": ("LoadAudio", "VHS_LoadAudioUpload"),
}
"""Those that take what a stage reads, where nothing says which does."""
MOST_NODES = 5000
"""Of a workflow; large ones of people have some hundreds."""


@dataclass(frozen=True)
class Place:
    """One input of one node."""

    node: str
    """Its id."""
    input: str
    """Name of the input."""


@dataclass(frozen=True)
class Node:
    """One node of a workflow."""

    id: str
    """As the workflow numbers it."""
    class_type: str
    """What it does."""
    title: str
    """What people call it; its type where they gave it no name."""
    inputs: Mapping[str, JsonValue]
    """Values by name; a list of two is the output of another node."""

    def __str__(self) -> str:
        """As messages name it."""
        named = "" if self.title == self.class_type else f" ({self.title!r})"
        return f"node {self.id} {self.class_type}{named}"


Graph = Mapping[str, Node]


@runtime_checkable
class RunsGraphs(Engine, Protocol):
    """Workflows of ComfyUI."""

    def run_graph(
        self, request: "GraphRequest", media: Sequence[Path], job: str, folder: Path
    ) -> tuple[Path, ...]:
        """Run a workflow once.

        Args:
            request: what to run.
            media: files, one for each place that the request names.
            job: names this work: what was begun under the same name is gone on with.
            folder: an empty one, for the result.

        Returns:
            What it saved of the kinds that the request wants, as the server wrote it, in the order
            of its nodes.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class GraphRequest(Request):
    """A workflow that is filled in."""

    capability: ClassVar[type] = RunsGraphs
    workflow: str
    """What messages call it."""
    graph: str
    """Its nodes as JSON, in the format of the API."""
    given: tuple[Place, ...] = ()
    """Inputs whose values somebody gave; they are checked before anything is sent."""
    media: tuple[Place, ...] = ()
    """Inputs that take files."""
    makes: tuple[MediaKind, ...] = ("image",)
    """Kinds of file that are its result; others are left aside, with a note."""


def read_graph(text: str | bytes, workflow: str) -> Graph:
    """The nodes of a workflow that was exported for the API, by id.

    Raises:
        InvalidFieldValueError: no JSON.
        ContractMismatchError: another format, for instance that of the editor.
    """
    try:
        found: object = json.loads(text)
        json.dumps(found, allow_nan=False, ensure_ascii=False).encode()  # no half characters
    except (ValueError, RecursionError) as error:
        raise InvalidFieldValueError(
            f"workflow {workflow} is no JSON: {str(error)[:200]}", "export it from ComfyUI again"
        ) from error
    if isinstance(found, dict) and isinstance(cast("dict[str, object]", found).get("nodes"), list):
        raise ContractMismatchError(
            f"workflow {workflow} is saved for the editor of ComfyUI, expected its API format",
            "open it in ComfyUI and take File > Export (API)",
        )
    if not isinstance(found, dict) or not found:
        raise _no_workflow(workflow, "it has no nodes")
    described = cast("dict[str, object]", found)
    if len(described) > MOST_NODES:
        raise _no_workflow(workflow, f"it has {len(described)} nodes, at most {MOST_NODES}")
    return {name: _node(workflow, name, each) for name, each in described.items()}


def graph_json(graph: Graph) -> str:
    """The nodes as the API takes them; the same graph gives the same text."""
    nodes = {
        node.id: {
            "class_type": node.class_type,
            "inputs": dict(node.inputs),
            "_meta": {"title": node.title},
        }
        for node in graph.values()
    }
    return json.dumps(nodes, separators=(",", ":"), ensure_ascii=False)


def with_values(graph: Graph, values: Mapping[Place, Scalar]) -> Graph:
    """The same workflow with other values in some places."""
    return {
        node.id: Node(
            node.id,
            node.class_type,
            node.title,
            {**node.inputs, **{at.input: new for at, new in values.items() if at.node == node.id}},
        )
        for node in graph.values()
    }


def place_of(graph: Graph, address: str, workflow: str) -> Place:
    """The input that `NODE.INPUT` names; the node by its id, its title or its type.

    Raises:
        ContractMismatchError: there is no such node, or several have that title.
    """
    parts = address.split(".")
    for cut in range(len(parts) - 1, 0, -1):  # titles have dots, names of inputs may
        named, name = ".".join(parts[:cut]), ".".join(parts[cut:])
        if named in graph:
            return Place(named, name)
        found = [node for node in graph.values() if node.title == named] or [
            node for node in graph.values() if node.class_type == named
        ]
        if len(found) > 1:
            ids = ", ".join(node.id for node in found)
            raise ContractMismatchError(
                f"workflow {workflow}: {shown(named)} may be any of the nodes {ids}",
                f"name one by its id, such as {found[0].id}.{name}",
            )
        if found:
            return Place(found[0].id, name)
    nodes = "; ".join(str(node) for node in list(graph.values())[:20])
    raise ContractMismatchError(
        f"workflow {workflow} has no node for {shown(address)}; it has {nodes}",
        "write NODE.INPUT, where NODE is the id or the title of one of these",
    )


def media_place(graph: Graph, address: str, workflow: str, kind: MediaKind) -> Place:
    """Where a file goes: where `address` says, else into the only node that loads such a one.

    Raises:
        ContractMismatchError: no node takes one, or several do.
    """
    if address:
        return place_of(graph, address, workflow)
    loaders = MAIN_LOADERS.get(kind, ())
    found = [node for node in graph.values() if node.class_type in loaders]
    named = "picture" if kind == "image" else kind
    if len(found) == 1:
        return Place(found[0].id, LOADERS[found[0].class_type][0])
    if not found:
        raise ContractMismatchError(
            f"workflow {workflow} has no node {' or '.join(loaders)}, and was given a {named}",
            "name the input that takes it in picture_input, or read nothing: reads: []",
        )
    places = ", ".join(f"{node.id}.{LOADERS[node.class_type][0]}" for node in found)
    raise ContractMismatchError(
        f"workflow {workflow} loads {len(found)} {named}s ({places}), and was given 1",
        "name the input that takes it in picture_input",
    )


def _node(workflow: str, name: str, described: object) -> Node:
    each = cast("dict[str, object]", described) if isinstance(described, dict) else {}
    class_type, inputs, meta = each.get("class_type"), each.get("inputs", {}), each.get("_meta")
    if not isinstance(class_type, str) or not isinstance(inputs, dict):
        raise _no_workflow(workflow, f"{shown(name)} is no node with class_type and inputs")
    title = cast("dict[str, object]", meta).get("title") if isinstance(meta, dict) else None
    return Node(
        name,
        class_type,
        title if isinstance(title, str) and title else class_type,
        cast("dict[str, JsonValue]", inputs),
    )


def _no_workflow(workflow: str, problem: str) -> ContractMismatchError:
    return ContractMismatchError(
        f"workflow {workflow} is no workflow in API format: {problem}",
        "open it in ComfyUI and take File > Export (API)",
    )
