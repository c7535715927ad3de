"""Holds a workflow against what the server says of its nodes, before anything is sent."""

from collections.abc import Mapping, Sequence
from typing import cast
from urllib.parse import quote

from safelight.engines.comfy.refusals import Wrong, missing_node
from safelight.engines.comfy.server import Server
from safelight.engines.graphs import Graph, Node, Place
from safelight.engines.object_info import Known, choices_of, config_of, inputs_of, options_of
from safelight.errors import PipelineError

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
            config = config_of(known, node.class_type, name)
            choices = choices_of(config) if config is not None else None
            wrong = Wrong(node, name, value, choices)
            if wrong.is_model and choices is not None and value not in choices:
                raise wrong.error(server)


def _wrong(server: Server, node: Node, name: str, known: Known) -> PipelineError | None:
    told, value = known[node.class_type], node.inputs.get(name)
    config = config_of(known, node.class_type, name)
    if config is None:
        names = ", ".join(dict.fromkeys(each for each, _ in inputs_of(told)))
        return Wrong(node, name, value, why=f"there is no such input; it has {names}").error(server)
    choices = choices_of(config)
    limits = options_of(config)
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
