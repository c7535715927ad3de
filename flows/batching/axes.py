"""What an axis of a grid changes: a parameter, several together, words of the prompt, a LoRA."""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from flows.batching.spreading import TOGETHER, label_of
from safelight.errors import ContractMismatchError, InvalidFieldValueError
from safelight.params import shown
from safelight.prompts.unfolded import PROMPTS

REPLACE, LORA = "replace", "lora"
"""Before a colon and the word that is replaced, or the name of the LoRA whose weight it is."""


def cell_values(
    cell: Mapping[str, JsonValue],
    axes: Mapping[str, Sequence[JsonValue]],
    where: str,
    shared: Mapping[str, JsonValue],
) -> dict[str, JsonValue]:
    """Parameters of one cell of a grid.

    Words are replaced in the order of the axes, after all else has its values.

    Args:
        cell: axis to value.
        axes: axis to all its values; the first of `replace` is the word that is replaced.
        where: the cell, for messages.
        shared: parameters of every cell.

    Raises:
        ContractMismatchError: values that move together are fewer or more than their names, or a
            word is in none of the prompts.
        InvalidFieldValueError: a value is none for such an axis.
    """
    values: dict[str, JsonValue] = {}
    for axis, value in cell.items():
        kind, _, name = axis.partition(":")
        if kind == REPLACE:
            continue
        if kind == LORA and name:
            given = values.get("loras", shared.get("loras", []))
            before = [*given] if isinstance(given, list) else []
            values["loras"] = [*before, {"name": name, "weight": value}]
        elif TOGETHER in axis:
            values.update(_together(axis, value, where))
        else:
            values[axis] = value
    for axis, value in cell.items():
        kind, _, word = axis.partition(":")
        if kind == REPLACE:
            values.update(_replaced(word or axes[axis][0], value, {**shared, **values}, where))
    return values


def axis_label(axis: str, value: JsonValue, said: str) -> str:
    """What a sheet writes beside a row or above a column.

    Args:
        axis: its name in the grid.
        value: of that row or column.
        said: the value as text.
    """
    kind, _, name = axis.partition(":")
    if kind == REPLACE:
        return said
    if kind == LORA and name:
        return f"{name} {said}"
    names = axis.split(TOGETHER)
    if len(names) > 1 and isinstance(value, list):
        return ", ".join(f"{n} {v}" for n, v in zip(names, value, strict=False))
    return f"{axis} {label_of(axis, said)}"


def _together(axis: str, value: JsonValue, where: str) -> dict[str, JsonValue]:
    names = [name.strip() for name in axis.split(TOGETHER)]
    if not isinstance(value, list) or len(value) != len(names):
        raise ContractMismatchError(
            f"{where}: {axis} is {shown(value)}, expected a list of {len(names)} values",
            f"give each of {', '.join(names)} a value",
        )
    return dict(zip(names, value, strict=True))


def _replaced(
    word: JsonValue, value: JsonValue, given: Mapping[str, JsonValue], where: str
) -> dict[str, JsonValue]:
    if not isinstance(word, str) or not word or not isinstance(value, str):
        raise InvalidFieldValueError(
            f"{where}: {shown(word)} is to be replaced by {shown(value)}, expected two texts",
            "correct the values of replace",
        )
    found: dict[str, JsonValue] = {
        name: text.replace(word, value)
        for name in PROMPTS
        if isinstance(text := given.get(name), str) and word in text
    }
    if not found:
        raise ContractMismatchError(
            f"{where}: {word[:80]!r} is to be replaced, and no prompt has it",
            "write it into the prompt as it is there, with its capitals",
        )
    return found
