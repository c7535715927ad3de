"""From what the editor of ComfyUI saves to what its API takes, by what the server says of nodes.

What cannot be told for certain is refused with the menu entry that exports it: a value that lands
in the input beside it would draw something else without a word.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from safelight.engines.object_info import Known, choices_of, inputs_of, is_optional, options_of
from safelight.errors import ContractMismatchError, DependencyMissingError, InvalidFieldValueError
from safelight.params import shown

EXPORT = "open it in ComfyUI and take File > Export (API)"
TYPED = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
"""Kinds of input that have a field in the editor."""
AFTER_SEEDS = ("fixed", "increment", "decrement", "randomize", True, False)
"""What the editor keeps behind a seed: what becomes of it after a run."""
ONLY_SEEN = ("Note", "MarkdownNote")
MUTED, BYPASSED = 2, 4
MOST_HOPS = 1000

Node = Mapping[str, Any]


def is_of_editor(text: bytes) -> bool:
    """Whether a file was saved for the editor."""
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and isinstance(cast("dict[str, Any]", found).get("nodes"), list)


def converted(text: bytes, known: Known, workflow: str) -> bytes:
    """The same workflow in the format of the API.

    Args:
        text: as the editor saved it.
        known: what the server says of all its types of node.
        workflow: what messages call it.

    Raises:
        ContractMismatchError: something in it is not understood for certain.
        DependencyMissingError: the server has no such type of node.
        InvalidFieldValueError: it is no JSON.
    """
    try:
        found = cast("dict[str, Any]", json.loads(text))
        prompt = _Editor(found, known, workflow).prompt()
    except (ValueError, RecursionError) as error:
        raise InvalidFieldValueError(
            f"workflow {workflow} is no JSON: {str(error)[:200]}", "save it in ComfyUI again"
        ) from error
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise ContractMismatchError(
            f"workflow {workflow} is not as the editor of ComfyUI saves it: "
            f"{type(error).__name__} {str(error)[:80]}",
            EXPORT,
        ) from error
    return json.dumps(prompt, ensure_ascii=False).encode()


class _Editor:
    """A workflow as the editor holds it."""

    def __init__(self, found: Mapping[str, Any], known: Known, workflow: str) -> None:
        self._known = known
        self._workflow = workflow
        definitions = found.get("definitions")
        if isinstance(definitions, dict) and cast("dict[str, Any]", definitions).get("subgraphs"):
            raise self._unclear("it has subgraphs")
        self._nodes: dict[str, Node] = {str(node["id"]): node for node in found["nodes"]}
        self._links: dict[int, tuple[str, int]] = {}
        for link in found.get("links") or []:
            if isinstance(link, dict):
                told = cast("dict[str, Any]", link)
                self._links[told["id"]] = str(told["origin_id"]), int(told["origin_slot"])
            else:
                self._links[link[0]] = str(link[1]), int(link[2])

    def prompt(self) -> dict[str, Any]:
        """Its nodes as the API takes them."""
        made: dict[str, Any] = {}
        for name, node in self._nodes.items():
            if node["type"] in (*ONLY_SEEN, "Reroute", "PrimitiveNode"):
                continue
            if node.get("mode") in (MUTED, BYPASSED):
                continue
            made[name] = {
                "class_type": node["type"],
                "inputs": self._inputs(node),
                "_meta": {"title": self._title(node)},
            }
        for each in made.values():  # what a muted node would give is not there
            gone = [key for key, value in each["inputs"].items() if _leads_nowhere(value, made)]
            for key in gone:
                del each["inputs"][key]
        return made

    def _title(self, node: Node) -> str:
        told = self._told(node)
        title = node.get("title")
        return title if isinstance(title, str) and title else str(told.get("display_name") or "")

    def _told(self, node: Node) -> Mapping[str, object]:
        told = self._known.get(node["type"])
        if told is None:
            raise DependencyMissingError(
                f"workflow {self._workflow}: ComfyUI has no node type {shown(node['type'])}",
                "install the custom nodes that bring it there, or export the workflow there: "
                "File > Export (API)",
            )
        return told

    def _inputs(self, node: Node) -> dict[str, Any]:
        inputs = dict(self._values(node))
        for each in node.get("inputs") or []:
            if each.get("link") is None:
                continue
            source = self._source(each["link"])
            if source is None:
                inputs.pop(each["name"], None)
            elif isinstance(source, _Value):
                inputs[each["name"]] = source.value
            else:
                inputs[each["name"]] = [source[0], source[1]]
        return inputs

    def _source(self, link: int) -> "tuple[str, int] | _Value | None":
        """The output that a link comes from, through what only passes it on."""
        for _ in range(MOST_HOPS):
            if link not in self._links:
                return None
            name, slot = self._links[link]
            node = self._nodes.get(name)
            if node is None or node.get("mode") == MUTED:
                return None
            if node["type"] == "PrimitiveNode":
                values = node.get("widgets_values") or []
                if not values:
                    raise self._unclear(f"node {name} holds no value")
                return _Value(values[0])
            if node["type"] != "Reroute" and node.get("mode") != BYPASSED:
                return name, slot
            onward = self._passed(node, slot)
            if onward is None:
                return None
            link = onward
        raise self._unclear("its links lead in a circle")

    def _passed(self, node: Node, slot: int) -> int | None:
        """The link that a node which is passed by takes the place of, by its type."""
        inputs = node.get("inputs") or []
        if node["type"] == "Reroute":
            return inputs[0].get("link") if inputs else None
        outputs = node.get("outputs") or []
        kind = outputs[slot].get("type") if slot < len(outputs) else None
        same = [each for each in inputs if each.get("type") == kind]
        at = [each for each in same if inputs.index(each) == slot] or same
        return next((each.get("link") for each in at if each.get("link") is not None), None)

    def _values(self, node: Node) -> Iterator[tuple[str, Any]]:
        """The values of its fields, which the editor keeps in a row without their names."""
        told, held = self._told(node), node.get("widgets_values")
        fields = [(name, config) for name, config in inputs_of(told) if _has_field(config)]
        if isinstance(held, dict):
            named = cast("dict[str, Any]", held)
            yield from ((name, named[name]) for name, _ in fields if name in named)
            return
        row = list(cast("list[Any]", held or []))
        for name, config in fields:
            if not row:
                linked = any(each.get("name") == name for each in node.get("inputs") or [])
                if linked or is_optional(told, name):
                    continue
                raise self._unclear(f"node {node['id']} {node['type']} has no value for {name}")
            value = row.pop(0)
            if not _fits(value, config):
                raise self._unclear(
                    f"node {node['id']} {node['type']}: {name} would be {shown(value)}"
                )
            yield name, value
            options = options_of(config)
            counted = options.get("control_after_generate") or name in ("seed", "noise_seed")
            if counted and row and row[0] in AFTER_SEEDS:
                row.pop(0)
            uploads = any(option.endswith("_upload") and options[option] for option in options)
            if uploads and row and row[0] in ("image", "video", "audio", "", None):
                row.pop(0)  # its button
        if any(each not in ("", None) for each in row):
            raise self._unclear(
                f"node {node['id']} {node['type']} has {len(row)} values more than it has fields"
            )

    def _unclear(self, what: str) -> ContractMismatchError:
        return ContractMismatchError(
            f"workflow {self._workflow} is saved for the editor of ComfyUI, and {what}", EXPORT
        )


class _Value:
    def __init__(self, value: object) -> None:
        self.value = value


def _leads_nowhere(value: object, made: Mapping[str, object]) -> bool:
    if not isinstance(value, list):
        return False
    linked = cast("list[object]", value)
    return len(linked) == 2 and isinstance(linked[0], str) and linked[0] not in made


def _has_field(config: list[object]) -> bool:
    options = options_of(config)
    if options.get("forceInput") or options.get("rawLink"):
        return False
    return isinstance(config[0], list) or config[0] in TYPED


def _fits(value: object, config: list[object]) -> bool:
    kind = config[0]
    if isinstance(value, dict):
        return False
    if choices_of(config) is not None:
        return isinstance(value, str | int | float | bool)
    if kind == "BOOLEAN":
        return isinstance(value, bool)
    if kind in ("INT", "FLOAT"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str)
