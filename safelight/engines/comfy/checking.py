"""Holds a workflow against what the server says of its nodes, before anything is sent."""

from collections.abc import Iterator, Mapping, Sequence
from typing import cast
from urllib.parse import quote

from safelight.engines.comfy.refusals import Wrong, choices_of, missing_node
from safelight.engines.comfy.server import Server
from safelight.engines.graphs import Graph, Node, Place
from safelight.errors import PipelineError

Known = Mapping[str, Mapping[str, object]]
"""Type of each node to what the server says of it."""
UPLOADED = ("image_upload", "video_upload", "audio_upload", "file_upload")
"""Options of choices that also take files which lie in folders below that of inputs."""
_PLAIN = {
    "INT": "a whole number",
    "FLOAT": "a number",
    "STRING": "text",
    "BOOLEAN": "true or false",
}


def nodes_of(server: Server, graph: Graph) -> Known:
    """What the server says of the types of node in a workflow.

    Raises:
        DependencyMissingError: it has no such type.
        PipelineError: as `Server.answer`.
    """
    known: dict[str, Mapping[str, object]] = {}
    types = {node.class_type: node for node in graph.values()}
    slashed = any("/" in name for name in types)  # a path cannot name it
    everything = server.answer("GET", "/object_info") if slashed else None
    for name, node in types.items():
        found = everything or server.answer("GET", f"/object_info/{quote(name, safe='')}")
        told = found.get(name)
        if not isinstance(told, dict):
            raise missing_node(server, node)
        known[name] = cast("dict[str, object]", told)
    return known


def check(server: Server, graph: Graph, given: Sequence[Place], known: Known) -> None:
    """Refuse values that somebody gave and the server would not take, and models it has not.

    Raises:
        ContractMismatchError: which node and input, and what is allowed.
        DependencyMissingError: a model is missing.
    """
    for place in given:
        error = _wrong(server, graph[place.node], place.input, known)
        if error is not None:
            raise error
    for node in graph.values():
        for name, value in node.inputs.items():
            config = _config(known[node.class_type], name)
            choices = choices_of(config) if config is not None else None
            wrong = Wrong(node, name, value, choices)
            if wrong.is_model and choices is not None and value not in choices:
                raise wrong.error(server)


def _wrong(server: Server, node: Node, name: str, known: Known) -> PipelineError | None:
    told, value = known[node.class_type], node.inputs.get(name)
    config = _config(told, name)
    if config is None:
        names = ", ".join(dict.fromkeys(each for each, _ in _inputs(told)))
        return Wrong(node, name, value, why=f"there is no such input; it has {names}").error(server)
    choices = choices_of(config)
    options = config[1] if len(config) > 1 else None
    limits = cast("dict[str, object]", options) if isinstance(options, dict) else {}
    if choices is not None:
        free = any(limits.get(option) for option in UPLOADED)
        taken = value in choices or (free and isinstance(value, str))
        return None if taken else Wrong(node, name, value, choices).error(server)
    kind = str(config[0])
    expected = _PLAIN.get(kind)
    if expected is None:
        why = f"it takes the output of another node ({kind}), not a value"
        return Wrong(node, name, value, why=why).error(server)
    why = "" if _fits(kind, value) else f"{value!r} is not {expected}"
    for bound, sign in (("min", -1), ("max", 1)):
        limit = limits.get(bound)
        if not why and _is_number(value) and _is_number(limit):
            beyond = cast("float", value) - cast("float", limit)
            why = (
                f"{value} is {'below' if sign < 0 else 'above'} {limit}"
                if sign * beyond > 0
                else ""
            )
    if not why:
        return None
    low, high = limits.get("min"), limits.get("max")
    between = f", from {low} to {high}" if low is not None and high is not None else ""
    return Wrong(node, name, value, why=f"{why}; expected {expected}{between}").error(server)


def _fits(kind: str, value: object) -> bool:
    if kind == "BOOLEAN":
        return isinstance(value, bool)
    if kind == "STRING":
        return isinstance(value, str)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole or (kind == "FLOAT" and isinstance(value, float))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _config(told: Mapping[str, object], name: str) -> Sequence[object] | None:
    return next((config for each, config in _inputs(told) if each == name), None)


def _inputs(told: Mapping[str, object]) -> Iterator[tuple[str, Sequence[object]]]:
    groups = told.get("input")
    for group in ("required", "optional"):
        named = cast("dict[str, object]", groups).get(group) if isinstance(groups, dict) else None
        for name, config in (
            cast("dict[str, object]", named).items() if isinstance(named, dict) else ()
        ):
            if isinstance(config, list):
                yield name, cast("list[object]", config)
