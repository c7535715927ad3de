"""Workflows put together node by node, with names as a server has them."""

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from pydantic import JsonValue

from safelight.engines.comfy.server import Server
from safelight.engines.graphs import Node
from safelight.engines.object_info import choices_of, config_of
from safelight.errors import DependencyMissingError

Link = list[JsonValue]
"""One output of a node."""


class Building:
    """Nodes that are added one by one."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        """By their ids."""

    def add(self, kind: str, title: str, **inputs: JsonValue) -> Callable[[int], Link]:
        """Add a node; what gives a link to one of its outputs."""
        name = str(len(self.nodes) + 1)
        self.nodes[name] = Node(name, kind, title, inputs)
        return lambda output: [name, output]


def named(server: Server, node: str, name: str, wanted: str | None, what: str) -> str:
    """A model as the server calls it, with or without folder and ending; its first for None.

    Args:
        server: whose models are meant.
        node: type of node that loads it.
        name: input of that node.
        wanted: how it was asked for.
        what: for the message.

    Raises:
        DependencyMissingError: it has none, or none of that name.
    """
    known = offered(server, node, name)
    found = [each for each in known if wanted is None or _is(each, wanted)]
    if not found:
        said = f"has no {what}" if wanted is None else f"has no {what} {wanted!r}"
        raise DependencyMissingError(
            f"ComfyUI at {server.url} {said}; it has {', '.join(known[:20]) or 'none'}",
            "put it into the folder of models of that ComfyUI, or name one that it has",
        )
    return found[0]


def offered(server: Server, node: str, name: str) -> Sequence[str]:
    """What an input of a type of node may hold; nothing where there is no such type.

    Raises:
        PipelineError: as `Server.answer`.
    """
    known = server.answer("GET", f"/object_info/{node}")
    told = {kind: each for kind, each in known.items() if isinstance(each, dict)}
    choices = choices_of(config_of(told, node, name)) or []
    return [each for each in choices if isinstance(each, str)]


def _is(offered: str, wanted: str) -> bool:
    path = PurePosixPath(offered.replace("\\", "/"))
    return wanted in (offered, path.name, path.stem, str(path.with_suffix("")))
