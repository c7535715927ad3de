"""Axes of a grid as they are typed: `steps=10,20,30`."""

import csv
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import NamedTuple, cast

from pydantic import JsonValue

from safelight.cli.batching import CHECKING, CheckedRequest, RequestFile
from safelight.client.contracts import Contract, refuse_unknown
from safelight.errors import ContractMismatchError, InvalidFieldValueError

SPREADING = "flows.batching.spreading"
EVERY = "every:"
"""Before a prompt of which all combinations are meant."""
TOGETHER = "+"
_KINDS = ("replace", "lora")


class AskedGrid(NamedTuple):
    """A grid that its flow has accepted."""

    grid: dict[str, JsonValue]
    """Axis to its values."""
    axes: dict[str, JsonValue]
    """x, y and z to the axes that they are."""
    shared: dict[str, JsonValue]
    """Parameters of every cell; a row of seeds among them is an axis."""
    cells: RequestFile
    """What it asks for."""


def read_grid(
    target: Contract, shared: Mapping[str, JsonValue], typed: Mapping[str, str | None]
) -> AskedGrid:
    """A grid, refused before anything is drawn.

    Args:
        target: the flow that each cell runs.
        shared: parameters of every cell.
        typed: x, y and z to `NAME=VALUE,VALUE`.

    Raises:
        PipelineError: an axis is not written as it should be, or a cell is refused.
    """
    grid: dict[str, list[JsonValue]] = {}
    axes: dict[str, JsonValue] = {}
    for place, text in typed.items():
        if text is None:
            continue
        name, values = _axis(place, text)
        if name in grid:
            raise ContractMismatchError(
                f"--{place} names {name}, as an option before it does", "name another parameter"
            )
        if name.partition(":")[0] not in _KINDS:
            refuse_unknown(name.split(TOGETHER), target.described, target.flow.name)
        grid[name], axes[place] = values, name
    checking, spreading = import_module(CHECKING), import_module(SPREADING)
    grid, rest = spreading.with_seed_axis(grid, shared)
    rows = checking.grid_rows(spreading.spread_axes(grid, checking.MOST_REQUESTS), rest)
    requests = checking.check_requests(checking.find_target(target.flow.name), rows, rest)
    cells = RequestFile(b"", "text/plain", cast("Sequence[CheckedRequest]", requests))
    return AskedGrid(cast("dict[str, JsonValue]", grid), axes, rest, cells)


def _axis(place: str, text: str) -> tuple[str, list[JsonValue]]:
    name, equals, rest = text.partition("=")
    (cells,) = list(csv.reader([rest], skipinitialspace=True)) or [[]]
    if not equals or not name.strip() or not any(cell.strip() for cell in cells):
        raise InvalidFieldValueError(
            f"--{place} is {text[:80]!r}, expected NAME=VALUE,VALUE",
            f"write --{place} steps=10,20, with quotes around a value that holds a comma",
        )
    name = name.strip()
    if name.partition(":")[0] not in _KINDS:
        name = name.replace("-", "_")
    return name, [_value(name, cell) for cell in cells]


def _value(name: str, cell: str) -> JsonValue:
    if cell.startswith(EVERY):
        return {"every": cell.removeprefix(EVERY)}
    if TOGETHER in name and name.partition(":")[0] not in _KINDS:
        return [*cell.split(TOGETHER)]
    return cell if name.partition(":")[0] == "replace" else cell.strip()
