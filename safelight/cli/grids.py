"""Axes of a grid as they are typed: `steps=10,20,30`."""

from collections.abc import Mapping
from typing import NamedTuple, cast

from pydantic import JsonValue

from safelight.cli.batching import RequestFile
from safelight.client.contracts import Contract, refuse_unknown
from safelight.client.requests import TOGETHER, axis_values, checked_grid, is_parameter
from safelight.errors import ContractMismatchError, InvalidFieldValueError


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
        if is_parameter(name):
            refuse_unknown(name.split(TOGETHER), target.described, target.flow.name)
        grid[name], axes[place] = values, name
    checked = checked_grid(target.flow.name, grid, shared)
    cells = RequestFile(b"", "text/plain", checked.requests)
    return AskedGrid(cast("dict[str, JsonValue]", checked.grid), axes, checked.shared, cells)


def _axis(place: str, text: str) -> tuple[str, list[JsonValue]]:
    name, equals, rest = text.partition("=")
    if not equals or not name.strip() or not rest.replace(",", " ").strip():
        raise InvalidFieldValueError(
            f"--{place} is {text[:80]!r}, expected NAME=VALUE,VALUE",
            f"write --{place} steps=10,20, with quotes around a value that holds a comma",
        )
    name = name.strip()
    if is_parameter(name):
        name = name.replace("-", "_")
    return name, axis_values(name, rest)
