"""Writes the board of a batch that is under way, in a thread of its own."""

import logging
import threading
import time
from abc import ABC, abstractmethod
from types import TracebackType

from flows.batching.catalogue import Outcomes
from flows.batching.requests import Request
from safelight.errors import PipelineError
from safelight.provenance.batches import BatchOutcome
from safelight.provenance.boards import Board, keep_board
from safelight.store.store import current_store

LOG = logging.getLogger(__name__)
EVERY_SECONDS = 1.0
"""Between two writings of a board."""
SHARE = 0.1
"""Of the time that its writing may take."""


class BoardWriter(ABC):
    """Keeps a board up to date; one that cannot be written stops no batch."""

    def __init__(self) -> None:
        self._store = current_store()
        self._lock = threading.Lock()
        self._new = threading.Event()
        self._over = threading.Event()
        self._writer = threading.Thread(target=self._go_on, name="board", daemon=True)

    def __enter__(self) -> "BoardWriter":
        """Write it as it is before anything has begun."""
        self._write(all_of_it=False)
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
        self._write(all_of_it=True)

    @abstractmethod
    def begun(self, request: Request, flow_run_id: str = "") -> None:
        """A request is under way."""

    @abstractmethod
    def ended(self, outcome: BatchOutcome) -> None:
        """A request has ended."""

    @abstractmethod
    def reinstated(self, outcomes: Outcomes) -> None:
        """Requests had ended before."""

    @abstractmethod
    def _write(self, *, all_of_it: bool) -> bool:
        """Write it, or a part of what is new; whether nothing is left to write."""

    def _tell(self) -> None:
        """Something is new."""
        self._new.set()

    def _keep(self, board: Board, page: int = 0) -> None:
        try:
            keep_board(self._store, board, page)
        except PipelineError as error:
            LOG.warning("the board of this batch is not up to date: %s", error)

    def _go_on(self) -> None:
        while not self._over.is_set():
            self._new.wait()
            self._new.clear()
            began = time.monotonic()
            if not self._write(all_of_it=False):
                self._new.set()
            took = time.monotonic() - began
            self._over.wait(max(EVERY_SECONDS, took / SHARE))
