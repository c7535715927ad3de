"""What a ComfyUI server says of its types of node (`/object_info`), for checks and forms."""

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from safelight.engines.graphs import Scalar

Known = Mapping[str, Mapping[str, object]]
"""Type of each node to what the server says of it."""


def inputs_of(told: Mapping[str, object]) -> Iterator[tuple[str, list[object]]]:
    """Name and description of each input that people or links fill, in the order of the editor."""
    groups = told.get("input")
    for group in ("required", "optional"):
        named = cast("dict[str, object]", groups).get(group) if isinstance(groups, dict) else None
        if not isinstance(named, dict):
            continue
        held = cast("dict[str, object]", named)
        order = told.get("input_order")
        listed = cast("dict[str, object]", order).get(group) if isinstance(order, dict) else None
        first = cast("list[object]", listed) if isinstance(listed, list) else []
        for name in dict.fromkeys([*(n for n in first if isinstance(n, str) and n in held), *held]):
            config = held[name]
            if isinstance(config, list):
                yield name, cast("list[object]", config)


def is_optional(told: Mapping[str, object], name: str) -> bool:
    """Whether an input may be left out."""
    groups = told.get("input")
    optional = cast("dict[str, object]", groups).get("optional") if isinstance(groups, dict) else ()
    return isinstance(optional, dict) and name in optional


def config_of(known: Known, class_type: str, name: str) -> list[object] | None:
    """What is said of one input; None where nothing is."""
    told = known.get(class_type, {})
    return next((config for each, config in inputs_of(told) if each == name), None)


def options_of(config: Sequence[object] | None) -> dict[str, object]:
    """Limits, default and tooltip of an input."""
    options = config[1] if config is not None and len(config) > 1 else None
    return cast("dict[str, object]", options) if isinstance(options, dict) else {}


def choices_of(config: Sequence[object] | None) -> list[Scalar] | None:
    """What an input may hold, where it is a choice of plain values; None where it is none.

    The choices stand in the place of the type, or under `options`.
    """
    if not config:
        return None
    kind = config[0]
    if isinstance(kind, str) and kind == "COMBO":
        kind = options_of(config).get("options")
    if not isinstance(kind, list):
        return None
    listed = cast("list[object]", kind)
    return [each for each in listed if isinstance(each, bool | int | float | str)]
