"""Finds what a workflow lets people change: by type of node, by title, by links."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from safelight.engines.graphs import LOADERS, Graph, Node, Scalar
from safelight.engines.object_info import Known, choices_of, config_of, options_of
from safelight.workflows.form import MEDIA, MOST_CHOICES, MOST_INPUTS, Form, Input, Kind, is_name

SHOWN = frozenset(
    {
        *("steps", "cfg", "guidance", "denoise", "strength", "width", "height", "batch_size"),
        *("length", "frames", "num_frames", "fps", "frame_rate", "seconds", "duration"),
        *("sampler_name", "scheduler", "ckpt_name", "unet_name", "lora_name", "strength_model"),
        *("upscale_model", "scale_by", "megapixels"),
    }
)
"""Inputs that people want to change."""
GENERIC = frozenset(
    {"value", "text", "string", "number", "int", "float", "boolean", "prompt", "file"}
)
"""Names of inputs that say less than the title of their node."""
PLAIN: Mapping[str, Kind] = {
    "INT": "integer",
    "FLOAT": "number",
    "STRING": "text",
    "BOOLEAN": "switch",
}
UPLOADS: Mapping[str, Kind] = {
    "image_upload": "image",
    "video_upload": "video",
    "audio_upload": "audio",
}
SEEDS = ("seed", "noise_seed")
ROLES = {"positive": "prompt", "negative": "negative_prompt", "conditioning": "prompt"}
"""Inputs of nodes that draw, to what the text that leads into them is."""
FAR = 64
"""Links that are followed from a node that draws to its text."""


@dataclass(frozen=True)
class _Found:
    node: Node
    name: str
    kind: Kind
    value: Scalar
    config: list[object] | None


def find_form(graph: Graph, known: Known, about: str = "") -> Form:
    """The form of a workflow, as good as it can be told.

    Args:
        graph: the workflow.
        known: what a server says of its nodes; what it leaves out is told by the values alone.
        about: what the workflow does.
    """
    found = list(_candidates(graph, known))[:MOST_INPUTS]
    roles = _roles(graph, found)
    inputs: dict[str, Input] = {}
    for each in sorted(found, key=lambda each: _rank(each, roles)):
        inputs[_named(each, roles, inputs, known)] = _input(each, roles, known)
    return Form(about=about, inputs=inputs)


def _candidates(graph: Graph, known: Known) -> Iterator[_Found]:
    for node in graph.values():
        for name, value in node.inputs.items():
            config = config_of(known, node.class_type, name)
            if not isinstance(value, bool | int | float | str):
                continue
            kind = _kind(node, name, value, config)
            if kind is not None:
                yield _Found(node, name, kind, value, config)


def _kind(node: Node, name: str, value: Scalar, config: list[object] | None) -> Kind | None:
    loader = LOADERS.get(node.class_type)
    if loader is not None and loader[0] == name and loader[1] in MEDIA:
        return cast("Kind", loader[1])
    told: Kind | None = _by_value(value) if config is None else _by_config(value, config)
    if told == "integer" and (name in SEEDS or options_of(config).get("control_after_generate")):
        return "seed" if isinstance(value, int) and value >= 0 else told
    return told


def _by_value(value: Scalar) -> Kind:
    if isinstance(value, bool):
        return "switch"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "text"


def _by_config(value: Scalar, config: list[object]) -> Kind | None:
    options = options_of(config)
    upload: Kind | None = next((k for name, k in UPLOADS.items() if options.get(name)), None)
    if upload is not None:
        return upload
    choices = choices_of(config)
    if choices is not None:
        if 0 < len(choices) <= MOST_CHOICES:
            return "choice"
        return "text" if isinstance(value, str) else None
    kind = PLAIN.get(str(config[0]))
    fits = {
        "integer": isinstance(value, int) and not isinstance(value, bool),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "text": isinstance(value, str),
        "switch": isinstance(value, bool),
    }
    return kind if kind is not None and fits[kind] else None


def _roles(graph: Graph, found: list[_Found]) -> dict[tuple[str, str], str]:
    """What the first texts, seeds and files are called, by node and input."""
    texts = {each.node.id: each for each in found if _is_prompt(each)}
    roles: dict[tuple[str, str], str] = {}
    taken: set[str] = set()

    def give(each: _Found, role: str) -> None:
        if role not in taken and (each.node.id, each.name) not in roles:
            roles[each.node.id, each.name] = role
            taken.add(role)

    for each in texts.values():
        if "negative" in each.node.title.lower():
            give(each, "negative_prompt")
    for node in graph.values():
        for side, role in ROLES.items():
            for at in _upstream(graph, node, side):
                if at in texts and not (
                    role == "prompt" and roles.get((at, texts[at].name)) == "negative_prompt"
                ):
                    give(texts[at], role)
                    break
    for each in texts.values():
        give(each, "prompt")
    for each in found:
        if each.kind == "seed":
            give(each, "seed")
        elif each.kind in MEDIA:
            mask = each.node.class_type == "LoadImageMask" or "mask" in each.node.title.lower()
            give(each, "mask" if mask else each.kind)
    return roles


def _is_prompt(each: _Found) -> bool:
    if each.kind != "text":
        return False
    encodes = "textencode" in each.node.class_type.lower().replace("_", "")
    return encodes or bool(options_of(each.config).get("multiline"))


def _upstream(graph: Graph, node: Node, side: str) -> Iterator[str]:
    """Nodes that lead into one input, the nearest first; on by the same side where there is one."""
    waiting = [_origin(node.inputs.get(side))]
    seen: set[str] = set()
    while waiting and len(seen) < FAR:
        at = waiting.pop(0)
        if at is None or at in seen or at not in graph:
            continue
        seen.add(at)
        yield at
        inputs = graph[at].inputs
        same = _origin(inputs.get(side))
        waiting += [same] if same else [_origin(value) for value in inputs.values()]


def _origin(value: object) -> str | None:
    linked = cast("list[object]", value) if isinstance(value, list) else []
    return str(linked[0]) if linked else None


def _rank(each: _Found, roles: Mapping[tuple[str, str], str]) -> int:
    """Prompts, files, seed, what else is shown, the rest."""
    order = ("prompt", "negative_prompt", "image", "mask", "video", "audio", "seed")
    role = roles.get((each.node.id, each.name))
    if role in order:
        return order.index(role)
    return len(order) + (each.kind not in MEDIA) + (each.name not in SHOWN)


def _input(each: _Found, roles: Mapping[tuple[str, str], str], known: Known) -> Input:
    options = options_of(each.config)
    choices = tuple(choices_of(each.config) or ()) if each.kind == "choice" else ()
    if choices and each.value not in choices:
        choices = (each.value, *choices[: MOST_CHOICES - 1])  # a file that may be there later
    least, most = (options.get(name) for name in ("min", "max"))
    numeric = each.kind in ("integer", "number")
    role = (each.node.id, each.name) in roles
    called = _custom_title(each.node, known)
    wanted = each.kind in MEDIA or each.name in SHOWN or _is_prompt(each)
    shown = role or wanted or (bool(called) and _alone(each))
    return Input(
        at=f"{each.node.id}.{each.name}",
        kind=each.kind,
        shown=shown,
        title=_title(each, called, known),
        least=_number(least) if numeric else None,
        most=_number(most) if numeric else None,
        choices=choices,
    )


def _alone(each: _Found) -> bool:
    """Whether the node is there to hold this one value."""
    values = [v for v in each.node.inputs.values() if not isinstance(v, list)]
    return len(values) == 1


def _number(limit: object) -> int | float | None:
    return limit if isinstance(limit, int | float) and not isinstance(limit, bool) else None


def _title(each: _Found, called: str, known: Known) -> str:
    told = options_of(each.config).get("tooltip")
    where = called or str(known.get(each.node.class_type, {}).get("display_name") or "")
    what = f"{where or each.node.class_type}: {each.name}"
    said = f"{what}. {' '.join(told.split())}" if isinstance(told, str) and told.strip() else what
    return said if len(said) <= 300 else f"{said[:297]}..."


def _custom_title(node: Node, known: Known) -> str:
    """What a person called a node; empty where it has the name of its type."""
    usual = (node.class_type, known.get(node.class_type, {}).get("display_name"))
    named = node.class_type in known and node.title not in usual
    return node.title if named else ""


def _named(
    each: _Found,
    roles: Mapping[tuple[str, str], str],
    taken: Mapping[str, object],
    known: Known,
) -> str:
    role = roles.get((each.node.id, each.name))
    title = _slug(_custom_title(each.node, known) or each.node.title)
    ending = f"_{each.kind}" if each.kind in MEDIA else ""
    tells_little = each.name in GENERIC or bool(ending)
    plain = "" if tells_little else f"_{_slug(each.name)}"
    tries = (
        role or plain.removeprefix("_"),
        f"{title}{plain}{ending}",
        f"{title}_{_slug(each.node.id)}{plain}{ending}",
        f"node_{_slug(each.node.id)}_{_slug(each.name)}{ending}",
        *(f"input_{number}{ending}" for number in range(len(taken) + 1)),
    )
    return next(name for name in tries if is_name(name) and name not in taken)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:40]
