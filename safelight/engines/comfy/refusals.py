"""What a ComfyUI server refuses, and how a workflow failed on it, as errors of ours."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from safelight.engines.comfy.server import Server
from safelight.engines.graphs import Graph, Node
from safelight.engines.object_info import choices_of
from safelight.errors import (
    ContractMismatchError,
    DependencyMissingError,
    OutOfMemoryError,
    PipelineError,
    UnknownError,
)
from safelight.params import shown

MODEL_FILES = (".safetensors", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".sft", ".gguf", ".onnx")
"""Endings by which a choice counts as a model."""
MOST_CHOICES = 20
_NO_NODE = ("missing_node_type",)
_MEMORY = ("outofmemoryerror", "out of memory", "allocation on device")


@dataclass(frozen=True)
class Wrong:
    """One input of one node that the server would not take."""

    node: Node
    """Where."""
    input: str
    """Its name; empty where the node as a whole is meant."""
    value: object
    """What it holds."""
    choices: Sequence[object] | None = None
    """What it may hold, where it is a choice."""
    why: str = ""
    """What is wrong with it, where it is none."""

    def error(self, server: Server) -> PipelineError:
        """The same as an error: a missing model where it names one, else a contract not kept."""
        where = f"{self.node}: {self.input}".rstrip(": ")
        if self.choices is not None and self.is_model:
            return DependencyMissingError(
                f"ComfyUI at {server.url} has no model {self.value!r} for {where}; it has "
                f"{_listed(self.choices)}",
                "put it into the folder of models of that ComfyUI, or name one that it has",
            )
        if self.choices is not None:
            return ContractMismatchError(
                f"{where} is {shown(self.value)}, expected one of {_listed(self.choices)}",
                f"correct {self.node.id}.{self.input}",
            )
        return ContractMismatchError(
            server.said(f"{where}: {self.why}"), f"correct {self.node.id}.{self.input}".rstrip(".")
        )

    @property
    def is_model(self) -> bool:
        """Whether it names the file of a model."""
        return isinstance(self.value, str) and self.value.lower().endswith(MODEL_FILES)


def missing_node(server: Server, node: Node) -> DependencyMissingError:
    """The error for a type of node that the server does not know."""
    return DependencyMissingError(
        f"ComfyUI at {server.url} has no node type {node.class_type!r} ({node})",
        "install the custom nodes that bring it there, or take the node out of the workflow",
    )


def refused(server: Server, graph: Graph, answer: Mapping[str, object]) -> PipelineError:
    """What the server has against a workflow, by the first node that it names."""
    found = sorted(_wrongs(graph, answer), key=lambda each: not each.is_model)
    if found:
        first, *others = found
        error = first.error(server)
        more = f" (and {len(others)} more)" if others else ""
        return type(error)(f"{error.problem}{more}", error.remedy)
    told = _object(answer.get("error"))
    message, details = str(told.get("message", "")), str(told.get("details", ""))
    unknown = _object(told.get("extra_info")).get("node_id")
    by_id = unknown if isinstance(unknown, str) else details.rpartition("#")[2].strip("'\" ")
    if told.get("type") in _NO_NODE or "does not exist" in message:
        node = graph.get(by_id)
        if node is not None:
            return missing_node(server, node)
        return DependencyMissingError(
            f"ComfyUI at {server.url}: {server.said(message)}",
            "install the custom nodes that bring it there, or take the node out of the workflow",
        )
    return ContractMismatchError(
        f"ComfyUI at {server.url} refuses the workflow: "
        f"{server.said(': '.join(each for each in (message, details) if each)) or 'no reason'}",
        "correct the workflow in ComfyUI and export it again",
    )


def failure(server: Server, graph: Graph, history: Mapping[str, object]) -> PipelineError | None:
    """How a finished prompt failed; None where it did not."""
    status = _object(history.get("status"))
    if status.get("status_str") != "error":
        return None
    for name, told in _messages(status):
        if name == "execution_interrupted":
            return UnknownError(
                f"somebody has interrupted the workflow in ComfyUI at {server.url}",
                "start the run again if it is still wanted",
            )
        if name == "execution_error":
            return _failed(server, graph, told)
    return UnknownError(
        f"the workflow failed in ComfyUI at {server.url}, which does not say why",
        "look into its log",
    )


def _failed(server: Server, graph: Graph, told: Mapping[str, object]) -> PipelineError:
    node = graph.get(str(told.get("node_id")))
    named = str(node) if node else f"node {told.get('node_id')} {told.get('node_type')}"
    kind, message = str(told.get("exception_type", "")), str(told.get("exception_message", ""))
    problem = server.said(f"{named}: {kind}: {message.strip()}")
    if any(sign in f"{kind} {message}".lower() for sign in _MEMORY):
        return OutOfMemoryError(
            f"ComfyUI at {server.url} ran out of memory: {problem}",
            "make the pictures of the workflow smaller, or free memory there",
        )
    return UnknownError(
        f"the workflow failed in ComfyUI at {server.url}: {problem}",
        "look into its log, and try the workflow there",
    )


def _wrongs(graph: Graph, answer: Mapping[str, object]) -> Iterator[Wrong]:
    for node_id, told in _object(answer.get("node_errors")).items():
        known = _object(told)
        kind = str(known.get("class_type", "node"))
        node = graph.get(node_id) or Node(node_id, kind, kind, {})
        errors = known.get("errors")
        for each in cast("list[object]", errors) if isinstance(errors, list) else ():
            error = _object(each)
            extra = _object(error.get("extra_info"))
            details, name = str(error.get("details", "")), extra.get("input_name")
            config = extra.get("input_config")
            choices = choices_of(cast("list[object]", config)) if isinstance(config, list) else None
            if error.get("type") == "value_not_in_list" and choices is None:
                choices = [f"as told: {details.partition(' not in ')[2]}"]
            yield Wrong(
                node,
                str(name) if name else "",
                extra.get("received_value"),
                choices if error.get("type") == "value_not_in_list" else None,
                f"{error.get('message', '')}: {details}",
            )


def _messages(status: Mapping[str, object]) -> Iterator[tuple[object, Mapping[str, object]]]:
    messages = status.get("messages")
    for each in cast("list[object]", messages) if isinstance(messages, list) else ():
        if isinstance(each, list) and len(cast("list[object]", each)) == 2:
            name, told = cast("list[object]", each)
            yield name, _object(told)


def _listed(choices: Sequence[object]) -> str:
    if not choices:
        return "none"
    named = ", ".join(shown(each) for each in choices[:MOST_CHOICES])
    more = len(choices) - MOST_CHOICES
    return f"{named} and {more} more" if more > 0 else named


def _object(value: object) -> dict[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}
