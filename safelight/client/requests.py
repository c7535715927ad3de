"""Many requests of one flow, as grids and tables: refused before anything is drawn.

What they mean stands with the flow `batch`, which is loaded by name: clients stand below the flows.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple, Protocol, cast

from pydantic import JsonValue

from safelight.client.contracts import contract
from safelight.errors import InvalidFieldValueError

CHECKING, SPREADING = "flows.batching.requests", "flows.batching.spreading"
READING = "flows.batching.reading.files"
LARGEST_FILE = 32 * 2**20
"""Bytes of a table; the flow reads no more."""
EVERY = "every:"
"""Before a prompt of which all combinations are meant."""
TOGETHER = "+"
KINDS = ("replace", "lora")
"""Axes that are no parameters."""


class CheckedRequest(Protocol):
    """A request that its flow has accepted."""

    where: str
    parameters: Mapping[str, JsonValue]


class CheckedGrid(NamedTuple):
    """A grid that its flow has accepted."""

    grid: dict[str, list[JsonValue]]
    """Axis to its values."""
    shared: dict[str, JsonValue]
    """Parameters of every cell; a row of seeds among them is an axis."""
    requests: Sequence[CheckedRequest]
    """What it asks for."""


def is_parameter(axis: str) -> bool:
    """Whether an axis changes parameters, and not words or a weight."""
    return axis.partition(":")[0] not in KINDS


def axis_values(axis: str, text: str) -> list[JsonValue]:
    """Values of an axis as they are typed: `10,20,30`, in quotes where one holds a comma.

    Args:
        axis: its name.
        text: the values.

    Raises:
        InvalidFieldValueError: there is none, or they are written in several lines.
    """
    try:
        (cells,) = list(csv.reader([text], skipinitialspace=True)) or [[]]
    except (csv.Error, ValueError) as error:
        raise InvalidFieldValueError(
            f"the values of {axis} cannot be read: {error}", "write them in one line: 10,20"
        ) from error
    if not any(cell.strip() for cell in cells):
        raise InvalidFieldValueError(f"{axis} has no value", "write values with commas: 10,20")
    return [_value(axis, cell) for cell in cells]


def _value(axis: str, cell: str) -> JsonValue:
    if cell.startswith(EVERY):
        return {"every": cell.removeprefix(EVERY)}
    if TOGETHER in axis and is_parameter(axis):
        return [*cell.split(TOGETHER)]
    return cell if axis.partition(":")[0] == "replace" else cell.strip()


def checked_grid(
    flow: str, grid: Mapping[str, list[JsonValue]], shared: Mapping[str, JsonValue]
) -> CheckedGrid:
    """Every cell of a grid, accepted by its flow.

    Args:
        flow: that each cell runs.
        grid: axis to its values.
        shared: parameters of every cell.

    Raises:
        PipelineError: a cell is refused, or there are too many.
    """
    checking, spreading = import_module(CHECKING), import_module(SPREADING)
    asked, rest = spreading.with_seed_axis(grid, shared)
    rows = checking.grid_rows(spreading.spread_axes(asked, checking.MOST_REQUESTS), rest)
    requests = checking.check_requests(checking.find_target(flow), rows, rest)
    return CheckedGrid(asked, rest, cast("Sequence[CheckedRequest]", requests))


def checked_rows(flow: str, rows: Iterable[Any], shared: Mapping[str, JsonValue]) -> int:
    """How many requests the rows of a table are, once their flow has accepted all.

    Args:
        flow: that each request runs.
        rows: as `table_rows` gives them.
        shared: parameters of every request; a request's own win.

    Raises:
        PipelineError: what is wrong with the first bad request, and which others are.
    """
    checking = import_module(CHECKING)
    return sum(1 for _ in checking.checked_requests(checking.find_target(flow), rows, shared))


def table_rows(flow: str, link: str) -> Iterable[Any]:
    """The rows of a table in the store.

    Args:
        flow: whose parameters its header names.
        link: `store:` link.

    Raises:
        PipelineError: it cannot be read, or a column names no parameter.
    """
    return cast("Iterable[Any]", import_module(READING).read_file(link, _names(flow)))


def table_type(flow: str, data: bytes, *, prompts: bool) -> tuple[str, int]:
    """The media type under which a table is kept, and how many rows it has.

    Args:
        flow: whose parameters its header names.
        data: the whole file.
        prompts: whether its lines may be prompts.

    Raises:
        PipelineError: it is none, or a column names no parameter.
    """
    reading = import_module(READING)
    rows = sum(1 for _ in reading.rows_in([data], _names(flow), None, prompts))
    media_type: str = reading.workbook_type(data) or "text/plain"
    return media_type, rows


def _names(flow: str) -> tuple[str, ...]:
    return tuple(contract(flow).described)
