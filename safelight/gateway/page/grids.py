"""A batch as a light table: its requests by two of its axes, one layer of a third at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from safelight.gallery.rows import Ran
from safelight.gateway.page.forms import text_of
from safelight.gateway.page.words import label
from safelight.provenance.batches import BatchOutcome, BatchReport
from safelight.provenance.boards import (
    Axis,
    Board,
    BoardCell,
    axes_of,
    captions_of,
    ended_cell,
)

TOGETHER = 6
"""Requests that are shown where two values meet; others are counted."""


@dataclass(frozen=True)
class Choice:
    """Which axis runs where; names that are no axes count as not chosen."""

    x: str = ""
    y: str = ""
    layer: int = 0
    """Which combination of the other axes is shown, from 0."""
    page: int = 1
    """Of a batch of very many."""

    def query(self) -> dict[str, str]:
        """As an address says it."""
        said = {
            "x": self.x,
            "y": self.y,
            "layer": str(self.layer) if self.layer else "",
            "page": str(self.page) if self.page > 1 else "",
        }
        return {name: value for name, value in said.items() if value}


@dataclass(frozen=True)
class Row:
    """Requests with one value of the axis that runs down."""

    title: str
    cells: list[list[BoardCell]]
    """By column."""


@dataclass(frozen=True)
class Grid:
    """Requests by the values of two axes; in a row that wraps where there is no second one."""

    x: str
    y: str
    names: list[str]
    """Of all axes."""
    columns: tuple[str, ...]
    rows: list[Row]
    layers: list[str]
    """Combinations of the other axes."""
    layer: int
    loose: list[BoardCell]
    """In their order, with captions: where nothing runs down."""


def grid_of(board: Board, wanted: Choice) -> Grid:
    """Lay out a board."""
    names = [axis.name for axis in board.axes]
    x, y = _places(names, wanted)
    across = board.axes[x] if x is not None else None
    down = board.axes[y] if y is not None else None
    others = [n for n in range(len(names)) if n not in (x, y)]
    layers = _layers([board.axes[n] for n in others])
    layer = min(max(wanted.layer, 0), len(layers) - 1)
    if across is None or down is None:
        name = across.name if across else ""
        return Grid(name, "", names, (), [], layers, 0, list(board.cells))
    assert x is not None
    assert y is not None
    at: dict[tuple[int, int], list[BoardCell]] = {}
    for cell in board.cells:
        if _layer_of(cell, board.axes, others) == layer:
            at.setdefault((cell.place[y], cell.place[x]), []).append(cell)
    rows = [
        Row(title, [at.get((n, m), []) for m in range(len(across.values))])
        for n, title in enumerate(down.values)
    ]
    return Grid(across.name, down.name, names, across.values, rows, layers, layer, [])


def _places(names: Sequence[str], wanted: Choice) -> tuple[int | None, int | None]:
    x = names.index(wanted.x) if wanted.x in names else None
    y = names.index(wanted.y) if wanted.y in names and wanted.y != wanted.x else None
    if x is None:
        x = next((n for n in range(len(names)) if n != y), None)
    if y is None:
        y = next((n for n in range(len(names)) if n != x), None)
    return x, y


def _layers(axes: Sequence[Axis]) -> list[str]:
    told = [""]
    for axis in axes:
        told = [f"{one}, {value}" if one else value for one in told for value in axis.values]
    return told


def _layer_of(cell: BoardCell, axes: Sequence[Axis], others: Sequence[int]) -> int:
    sizes = [len(axes[n].values) for n in others]
    return sum(cell.place[n] * prod(sizes[at + 1 :]) for at, n in enumerate(others))


def board_of(
    report: BatchReport, outcomes: Sequence[BatchOutcome], ran: Mapping[str, Ran]
) -> Board:
    """The board of a batch that told none: by what the manifests of its runs say.

    Args:
        report: of the batch.
        outcomes: those that it shows.
        ran: their runs.
    """
    runs = [ran.get(outcome.flow_run_id) for outcome in outcomes]
    given = [
        {name: text_of(value) for name, value in (run.parameters if run else {}).items()}
        for run in runs
    ]
    found = {name: _sorted(said) for name, said in axes_of(given).items()}
    captions = captions_of(given, [outcome.where for outcome in outcomes])
    cells = tuple(
        ended_cell(
            BoardCell(
                number=outcome.number,
                where=outcome.where,
                caption=caption,
                place=tuple(values.index(said.get(name, "")) for name, values in found.items()),
            ),
            outcome,
            1,
        )
        for outcome, said, caption in zip(outcomes, given, captions, strict=True)
    )
    axes = tuple(
        Axis(name=name, values=tuple(f"{label(name)} {text}" for text in values))
        for name, values in found.items()
    )
    run = report.flow_run_id
    return Board(flow_run_id=run, flow=report.flow, began=0, told=0, axes=axes, cells=cells)


def _sorted(said: list[str]) -> list[str]:
    try:
        return sorted(said, key=float)
    except ValueError:
        return said
