"""The board of a batch of very many, in pages: each is made of what the catalogue has."""

import time
from array import array
from collections.abc import Callable, Sequence
from itertools import islice

from flows.batching.board_writer import BoardWriter
from flows.batching.catalogue import Catalogue, Outcomes
from flows.batching.requests import Request
from safelight.provenance.batches import BatchOutcome, Tally, tallied, together
from safelight.provenance.boards import PAGE, Axis, Board, BoardCell, Counted, ended_cell

AT_ONCE = 4
"""Pages that are written in one turn; one of them may be of those where nothing happens."""
LaidOut = Callable[[Sequence[Request]], tuple[tuple[Axis, ...], list[BoardCell]]]
"""Axes and cells of some requests, before they begin."""


class BoardPages(BoardWriter):
    """Keeps the pages up to date, those where something happens first; memory stays flat.

    Args:
        flow_run_id: of the batch.
        flow: what each request runs.
        requests: all of them, with their outcomes.
        laid_out: lays out those of a page.
    """

    def __init__(self, flow_run_id: str, flow: str, requests: Catalogue, laid_out: LaidOut) -> None:
        super().__init__()
        now = time.time()
        self._board = Board(flow_run_id=flow_run_id, flow=flow, began=now, told=now)
        self._requests = requests
        self._laid_out = laid_out
        self._latest = round(now * 1000)  # behind all changes that an earlier process told
        self._changes = array("q", bytes(8 * len(requests)))
        self._going: set[int] = set()
        self._ended = Tally()
        self._busy: dict[int, None] = {}
        self._stale = dict.fromkeys(range(-(-len(requests) // PAGE)))

    def begun(self, request: Request, flow_run_id: str = "") -> None:
        """A request is under way."""
        del flow_run_id  # a shard has many
        with self._lock:
            self._going.add(request.number)
            self._changed(request.number)
        self._tell()

    def ended(self, outcome: BatchOutcome) -> None:
        """A request has ended."""
        with self._lock:
            self._going.discard(outcome.number)
            self._ended = together(self._ended, tallied([outcome]))
            self._changed(outcome.number)
        self._tell()

    def reinstated(self, outcomes: Outcomes) -> None:
        """Requests had ended before: the pages that an earlier process wrote may lack some."""
        with self._lock:
            self._ended = outcomes.tally()
            self._latest += 1
            for place in range(len(self._changes)):
                self._changes[place] = self._latest
            self._stale = dict.fromkeys(range(-(-len(self._requests) // PAGE)))
        self._tell()

    def _changed(self, number: int) -> None:
        place = number - self._requests.first
        self._latest += 1
        self._changes[place] = self._latest
        self._busy[place // PAGE] = None

    def _write(self, *, all_of_it: bool) -> bool:
        with self._lock:
            counted = Counted(
                requests=len(self._requests), going=len(self._going), ended=self._ended
            )
        self._keep(self._board.model_copy(update={"counted": counted, "told": time.time()}))
        while True:
            for page in self._next():
                self._keep(self._page(page), page + 1)
            if not (self._busy or self._stale):
                return True
            if not all_of_it:
                return False

    def _next(self) -> list[int]:
        with self._lock:
            pages = [*islice(self._busy, AT_ONCE - bool(self._stale))]
            pages += islice((page for page in self._stale if page not in pages), 1)
            for page in pages:
                self._busy.pop(page, None)
                self._stale.pop(page, None)
            return pages

    def _page(self, page: int) -> Board:
        places = slice(page * PAGE, (page + 1) * PAGE)
        with self._lock:
            changes = self._changes[places]
            going = self._going & {
                *range(self._requests.first + places.start, self._requests.first + places.stop)
            }
        axes, laid_out = self._laid_out(self._requests[places])
        outcomes = self._requests.outcomes.among(laid_out[0].number, laid_out[-1].number)
        cells: list[BoardCell] = []
        for cell, change in zip(laid_out, changes, strict=True):
            outcome = outcomes.get(cell.number)
            if outcome is not None:
                cells.append(ended_cell(cell, outcome, change))
            else:
                state = "running" if cell.number in going else "waits"
                cells.append(cell.model_copy(update={"state": state, "change": change}))
        return self._board.model_copy(
            update={"axes": axes, "cells": tuple(cells), "told": time.time()}
        )
