"""Sheets of what a batch made."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product

from prefect.logging import get_run_logger
from pydantic import JsonValue

from flows.batching.axes import axis_label
from flows.batching.requests import Request
from safelight.errors import ContractMismatchError, InvalidFieldValueError
from safelight.provenance.batches import BatchOutcome
from safelight.store.artifact import ArtifactRef
from safelight.store.store import SCHEME
from tasks.base.recorder import recorder
from tasks.sheets import Form, GridSheetParams, SheetParams, axes, contact

CELL, SMALLEST_CELL = 256, 32
LEGIBLE_CELL = 128
"""Pixels of a cell for small pictures: a narrower one has no room for words."""
LARGEST_SHEET = 48_000_000
"""Pixels; a grid with more cells gets smaller ones."""
LONGEST_WEBP = 16383
"""Pixels of a side that the format has."""
ON_ONE_SHEET = 200
"""Pictures; more go on further sheets."""
ALONG = 40
"""Cells along a side of a grid's sheet; longer axes go on on further sheets."""
IN_A_ROW = 20
"""Values of a grid that has no other axis; more are laid out row by row, each with its value."""
MOST_SHEETS = 200
"""Of a grid."""
MOST_LAID_OUT = 8000
"""Results on contact sheets."""
LONGEST_CAPTION = 80
"""Characters."""
Grid = Mapping[str, Sequence[JsonValue]]


@dataclass(frozen=True)
class SheetAxes:
    """Which axes of a grid run where on its sheets."""

    across: str | None
    """Its values are the columns; None when there is no grid."""
    down: str | None
    """Its values are the rows; None makes sheets of one row."""
    others: tuple[str, ...]
    """Each combination of their values is a sheet, the last changing fastest."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, those of columns and rows first."""
        return tuple(n for n in (self.across, self.down, *self.others) if n is not None)

    def wraps(self, grid: "Grid") -> bool:
        """Whether the values across are too many for one row, and there is nothing down."""
        return self.down is None and len(grid[self.across or ""]) > IN_A_ROW


def sheet_axes(grid: Grid, x: str | None, y: str | None, z: str | None) -> SheetAxes:
    """Give every axis of a grid its place; those with several values first where none is named.

    Raises:
        ContractMismatchError: an axis is not in the grid, or is named twice.
    """
    named = [name for name in (x, y, z) if name is not None]
    for option, name in (("x", x), ("y", y), ("z", z)):
        if name is not None and name not in grid:
            there = ", ".join(grid) or "no axis"
            raise ContractMismatchError(
                f"{option} is {name!r}; the grid has {there}", f"set {option} to a key of grid"
            )
        if name is not None and named.count(name) > 1:
            raise ContractMismatchError(
                f"x, y and z name {name!r} twice", f"name another key of grid with {option}"
            )
    rest = sorted((name for name in grid if name not in named), key=lambda n: len(grid[n]) == 1)
    across = x or (rest.pop(0) if rest else None)
    down = y or (rest.pop(0) if rest else None)
    return SheetAxes(across, down, ((z,) if z else ()) + tuple(rest))


@dataclass(frozen=True)
class SheetStyle:
    """How sheets look."""

    title: str = ""
    """Written above each."""
    legends: bool = True
    """Whether a grid's values stand beside its rows and above its columns."""
    cell: int | None = None
    """Side of a picture, px; None makes it as small as the grid is large."""
    form: Form = "png"
    """Of the files."""


def largest_cell(columns: int, rows: int, form: Form) -> int:
    """The largest side of a picture, px, of which a sheet of so many may be made."""
    largest = math.isqrt(LARGEST_SHEET // (columns * rows))
    if form == "webp":  # a cell has a gap of a 32nd of it, labels take one more along each side
        largest = min(largest, LONGEST_WEBP * 31 // 32 // (max(columns, rows) + 1))
    return largest


def check_cell(grid: Grid, order: SheetAxes, style: SheetStyle) -> None:
    """Refuse cells of which a sheet of the grid would be too large, and too many sheets.

    Raises:
        InvalidFieldValueError: with the largest that there may be.
    """
    sides = [len(grid[name]) if name else 1 for name in (order.across, order.down)]
    count = math.prod(math.ceil(side / ALONG) for side in sides)
    sheets = math.prod(len(grid[name]) for name in order.others) * count
    if sheets > MOST_SHEETS:
        raise InvalidFieldValueError(
            f"the grid has {sheets} sheets, one for each of {', '.join(order.others)}, expected at "
            f"most {MOST_SHEETS}",
            "name the longest axes as x and y, or set sheets to false",
        )
    if order.wraps(grid):
        return
    columns, rows = (min(side, ALONG) for side in sides)
    count = columns * rows
    largest = largest_cell(columns, rows, style.form)
    if style.cell is not None and style.cell > largest:
        raise InvalidFieldValueError(
            f"cell is {style.cell} px, and a {style.form} of {count} such cells is too large",
            f"set cell to at most {largest}",
        )


PLAIN = SheetStyle()


def lay_out_grid(
    grid: Grid,
    order: SheetAxes,
    requests: Sequence[Request],
    outcomes: Mapping[int, BatchOutcome],
    style: SheetStyle = PLAIN,
) -> list[ArtifactRef]:
    """X/Y sheets, one for each combination of the values on all other axes.

    Args:
        grid: axis to its values.
        order: which axis runs where.
        requests: the cells.
        outcomes: of the cells that ended, by number.
        style: how they look.
    """
    made = _Cells(requests, outcomes)
    if order.across is None:
        return []
    sheets: list[ArtifactRef] = []
    for places in product(*(range(len(grid[name])) for name in order.others)):
        fixed = dict(zip(order.others, places, strict=True))
        if order.wraps(grid):
            sheets += _wrapped(grid, order.across, fixed, made, style)
        else:
            sheets += _pages(grid, order.across, order.down, fixed, made, style)
    return sheets


class _Cells:
    """What the cells of a grid made, read as sheets come to them."""

    def __init__(self, requests: Sequence[Request], outcomes: Mapping[int, BatchOutcome]) -> None:
        self._numbers = {request.place: request.number for request in requests}
        self._outcomes = outcomes

    def at(self, place: tuple[int, ...]) -> list[ArtifactRef]:
        """That of one cell."""
        outcome = self._outcomes.get(self._numbers.get(place, -1))
        return [] if outcome is None else _seen(outcome)


def _pages(
    grid: Grid,
    across: str,
    down: str | None,
    fixed: Mapping[str, int],
    made: "_Cells",
    style: SheetStyle,
) -> Iterator[ArtifactRef]:
    """Sheets of as many columns and rows as people can look at."""
    columns = list(_places(len(grid[across])))
    rows = list(_places(len(grid[down]))) if down else [range(1)]
    for number, (here, there) in enumerate(product(rows, columns), 1):
        page = f"{number} of {len(rows) * len(columns)}" if len(rows) * len(columns) > 1 else ""
        sheet = _grid_sheet(grid, (across, there), (down, here), fixed, made, style, page)
        if sheet is not None:
            yield sheet


def _places(count: int) -> Iterator[range]:
    """The places on an axis, sheet by sheet."""
    return (range(start, min(start + ALONG, count)) for start in range(0, count, ALONG))


def _wrapped(
    grid: Grid,
    across: str,
    fixed: Mapping[str, int],
    made: "_Cells",
    style: SheetStyle,
) -> list[ArtifactRef]:
    """Sheets of one axis, row by row, with the value below each picture."""
    shown: list[tuple[str, ArtifactRef]] = []
    for at, value in enumerate(grid[across]):
        places = {**fixed, across: at}
        label = _label(across, value)[:LONGEST_CAPTION] if style.legends else ""
        shown += [(label, ref) for ref in made.at(tuple(places[name] for name in grid))]
    return _contacts(shown, style, _title(grid, fixed, style))


def _title(grid: Grid, fixed: Mapping[str, int], style: SheetStyle, page: str = "") -> str:
    here = (_label(name, grid[name][at]) for name, at in fixed.items())
    return ", ".join(filter(None, (style.title, *here, page)))


def _grid_sheet(
    grid: Grid,
    across: tuple[str, range],
    down: tuple[str | None, range],
    fixed: Mapping[str, int],
    made: "_Cells",
    style: SheetStyle,
    page: str,
) -> ArtifactRef | None:
    (x, columns), (y, rows) = across, down
    pictures: list[ArtifactRef] = []
    cells: list[tuple[int, ...]] = []
    for row, column in product(rows, columns):
        at = {**fixed, x: column, **({y: row} if y else {})}
        refs = made.at(tuple(at[name] for name in grid))
        cells.append(tuple(range(len(pictures), len(pictures) + len(refs))))
        pictures += refs
    if not pictures:
        return None
    several = math.isqrt(max(max(map(len, cells)), 1) - 1) + 1
    largest = largest_cell(len(columns), len(rows), style.form)
    fitting = max(SMALLEST_CELL, min(_fitting_cell(pictures, several), largest))
    named = y if style.legends else None
    params = GridSheetParams(
        columns=tuple(_label(x, grid[x][at]) if style.legends else "" for at in columns),
        rows=tuple(_label(named, grid[named][at]) if named else "" for at in rows),
        cells=tuple(cells),
        title=_title(grid, fixed, style, page),
        cell=style.cell or fitting,
        form=style.form,
    )
    return axes(pictures, params)


def lay_out_all(
    requests: Sequence[Request],
    outcomes: Mapping[int, BatchOutcome],
    style: SheetStyle = PLAIN,
) -> list[ArtifactRef]:
    """Contact sheets of what was made, in the order of the requests; of very much, the first."""
    every = (
        (caption(request, outcomes[request.number]), ref)
        for request in requests
        if request.number in outcomes
        for ref in _seen(outcomes[request.number])
    )
    shown = [*islice(every, MOST_LAID_OUT)]
    if next(every, None) is not None:
        told = f"the sheets show the first {MOST_LAID_OUT} results; report and table have all"
        get_run_logger().warning("%s", told)
        recorder().answer["sheets"] = told
    return _contacts(shown, style, style.title)


def _contacts(
    shown: Sequence[tuple[str, ArtifactRef]], style: SheetStyle, title: str
) -> list[ArtifactRef]:
    """Contact sheets of pictures with their captions."""
    sheets: list[ArtifactRef] = []
    cell = style.cell or _fitting_cell([ref for _, ref in shown])
    most = min(ON_ONE_SHEET, LARGEST_SHEET // cell**2)
    for start in range(0, len(shown), most):
        some = shown[start : start + most]
        columns = min(10, max(1, math.ceil(math.sqrt(len(some)))))
        params = SheetParams(
            captions=tuple(text for text, _ in some),
            columns=columns,
            title=title,
            cell=cell,
            form=style.form,
        )
        sheets.append(contact([ref for _, ref in some], params))
    return sheets


def _fitting_cell(pictures: Sequence[ArtifactRef], several: int = 1) -> int:
    """Side of a cell in which so many pictures a side fill what there is, up to the usual one."""
    sides = [max(ref.width or CELL, ref.height or CELL) for ref in pictures]
    return min(CELL, max(LEGIBLE_CELL, several * max(sides, default=CELL)))


def _seen(outcome: BatchOutcome) -> list[ArtifactRef]:
    return [ref for ref in outcome.results if ref.kind in ("image", "video")]


def caption(request: Request, outcome: BatchOutcome | None = None) -> str:
    """Number and what tells the request from others, short; words that were drawn, once known."""
    drawn = {one.field: one.text for one in outcome.unfolded} if outcome else {}
    texts = (value for value in request.parameters.values() if isinstance(value, str))
    words = (
        drawn.get("prompt")
        or request.parameters.get("prompt")
        or next((text for text in texts if not text.startswith(SCHEME)), request.where)
    )
    return f"{request.number}  {words}"[:LONGEST_CAPTION]


def _label(name: str, value: JsonValue) -> str:
    return axis_label(name, value, value if isinstance(value, str) else json.dumps(value))
