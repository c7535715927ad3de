"""Tells the board of a batch what becomes of its requests, as they begin and end."""

import json
import time
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from flows.batching.axes import axis_label
from flows.batching.board_pages import BoardPages
from flows.batching.board_writer import BoardWriter
from flows.batching.catalogue import Outcomes, catalogued
from flows.batching.requests import Request
from flows.batching.spreading import label_of
from safelight.provenance.batches import BatchOutcome, BatchReport
from safelight.provenance.boards import (
    Axis,
    Board,
    BoardCell,
    axes_of,
    captions_of,
    ended_cell,
)

MOST_CELLS = 2000
"""Of a board: it stands in memory, and each writing of it is one object. More stand in pages."""


class Boarding(BoardWriter):
    """Keeps the board of a batch up to date; a board that cannot be written stops no batch.

    Args:
        flow_run_id: of the batch.
        flow: what each request runs.
        requests: all of them.
        grid: its axes with their values; empty where there is none.
        order: names of its axes, those of columns and rows first.
    """

    def __init__(
        self,
        flow_run_id: str,
        flow: str,
        requests: Sequence[Request],
        grid: Mapping[str, Sequence[JsonValue]],
        order: Sequence[str],
    ) -> None:
        super().__init__()
        laid_out, cells = _of_grid(requests, grid, order) if grid else laid_out_list(requests)
        now = time.time()
        self._board = Board(flow_run_id=flow_run_id, flow=flow, began=now, told=now, axes=laid_out)
        self._cells = {cell.number: cell for cell in cells}
        self._changes = 0

    def begun(self, request: Request, flow_run_id: str = "") -> None:
        """A request is under way."""
        with self._lock:
            self._changes += 1
            changed = {"state": "running", "change": self._changes, "flow_run_id": flow_run_id}
            self._cells[request.number] = self._cells[request.number].model_copy(update=changed)
        self._tell()

    def ended(self, outcome: BatchOutcome) -> None:
        """A request has ended."""
        with self._lock:
            self._changes += 1
            cell = self._cells[outcome.number]
            self._cells[outcome.number] = ended_cell(cell, outcome, self._changes)
        self._tell()

    def reinstated(self, outcomes: Outcomes) -> None:
        """Requests had ended before."""
        for outcome in outcomes.in_order():
            self.ended(outcome)

    def _write(self, *, all_of_it: bool) -> bool:
        del all_of_it  # it is one object
        with self._lock:
            cells = tuple(self._cells.values())
        self._keep(self._board.model_copy(update={"cells": cells, "told": time.time()}))
        return True


def boarding(
    begun: BatchReport,
    requests: Sequence[Request],
    grid: Mapping[str, Sequence[JsonValue]],
    order: Sequence[str],
) -> BoardWriter:
    """What keeps the board of a batch; of one of very many, in pages.

    Args:
        begun: its report as it begins.
        requests: all of them.
        grid: as `Boarding` takes it.
        order: likewise.
    """
    if len(requests) > MOST_CELLS:
        return BoardPages(begun.flow_run_id, begun.flow, catalogued(requests), laid_out_list)
    return Boarding(begun.flow_run_id, begun.flow, requests, grid, order)


def _of_grid(
    requests: Sequence[Request], grid: Mapping[str, Sequence[JsonValue]], order: Sequence[str]
) -> tuple[tuple[Axis, ...], list[BoardCell]]:
    """As the grid has them; its requests know their place."""
    axes = tuple(
        Axis(name=name, values=tuple(axis_label(name, value, _text(value)) for value in grid[name]))
        for name in order
    )
    at = [[*grid].index(name) for name in order]
    return axes, [
        cell.model_copy(update={"place": tuple(each.place[n] for n in at)})
        for cell, each in zip(_cells(requests, [*map(_said, requests)]), requests, strict=True)
    ]


def laid_out_list(requests: Sequence[Request]) -> tuple[tuple[Axis, ...], list[BoardCell]]:
    """Parameters that differ become axes, where the requests make a grid along them."""
    given = [*map(_said, requests)]
    found = axes_of(given)
    axes = tuple(
        Axis(name=name, values=tuple(f"{name} {text}" for text in said))
        for name, said in found.items()
    )
    return axes, [
        cell.model_copy(
            update={"place": tuple(v.index(said.get(name, "")) for name, v in found.items())}
        )
        for cell, said in zip(_cells(requests, given), given, strict=True)
    ]


def _cells(requests: Sequence[Request], given: Sequence[Mapping[str, str]]) -> list[BoardCell]:
    captions = captions_of(given, [each.where for each in requests])
    return [
        BoardCell(number=each.number, where=each.where, caption=caption)
        for each, caption in zip(requests, captions, strict=True)
    ]


def _said(request: Request) -> dict[str, str]:
    return {name: label_of(name, _text(value)) for name, value in request.parameters.items()}


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)
