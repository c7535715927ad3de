"""Tells the board of a batch what becomes of its requests, as they begin and end."""

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from pydantic import JsonValue

from flows.batching.axes import axis_label
from flows.batching.requests import Request
from flows.batching.spreading import label_of
from safelight.errors import PipelineError
from safelight.provenance.batches import BatchOutcome, BatchReport
from safelight.provenance.boards import (
    Axis,
    Board,
    BoardCell,
    axes_of,
    captions_of,
    ended_cell,
    keep_board,
)
from safelight.store.store import current_store

LOG = logging.getLogger(__name__)
EVERY_SECONDS = 1.0
"""Between two writings of a board."""
MOST_CELLS = 2000
"""Of a board: it stands in memory, and each writing of it is one object."""


class Boarding:
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
        laid_out, cells = _of_grid(requests, grid, order) if grid else _of_list(requests)
        now = time.time()
        self._board = Board(flow_run_id=flow_run_id, flow=flow, began=now, told=now, axes=laid_out)
        self._cells = {cell.number: cell for cell in cells}
        self._store = current_store()
        self._lock = threading.Lock()
        self._changes = 0
        self._new = threading.Event()
        self._over = threading.Event()
        self._writer = threading.Thread(target=self._tell, name="board", daemon=True)

    def __enter__(self) -> "Boarding":
        """Write it as it is before anything has begun."""
        self._write()
        self._writer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write it as it is in the end."""
        self._over.set()
        self._new.set()
        self._writer.join()
        self._write()

    def begun(self, request: Request, flow_run_id: str = "") -> None:
        """A request is under way."""
        with self._lock:
            self._changes += 1
            changed = {"state": "running", "change": self._changes, "flow_run_id": flow_run_id}
            self._cells[request.number] = self._cells[request.number].model_copy(update=changed)
        self._new.set()

    def ended(self, outcome: BatchOutcome) -> None:
        """A request has ended."""
        with self._lock:
            self._changes += 1
            cell = self._cells[outcome.number]
            self._cells[outcome.number] = ended_cell(cell, outcome, self._changes)
        self._new.set()

    def _tell(self) -> None:
        while not self._over.is_set():
            self._new.wait()
            self._new.clear()
            self._write()
            self._over.wait(EVERY_SECONDS)

    def _write(self) -> None:
        with self._lock:
            cells = tuple(self._cells.values())
        try:
            keep_board(
                self._store,
                self._board.model_copy(update={"cells": cells, "told": time.time()}),
            )
        except PipelineError as error:
            LOG.warning("the board of this batch is not up to date: %s", error)


def boarding(
    begun: BatchReport,
    requests: Sequence[Request],
    grid: Mapping[str, Sequence[JsonValue]],
    order: Sequence[str],
) -> Boarding | None:
    """The board of a batch; None of one of very many, which no grid shows at once.

    Args:
        begun: its report as it begins.
        requests: all of them.
        grid: as `Boarding` takes it.
        order: likewise.
    """
    if len(requests) > MOST_CELLS:
        return None
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


def _of_list(requests: Sequence[Request]) -> tuple[tuple[Axis, ...], list[BoardCell]]:
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
