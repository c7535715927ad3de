"""Waits for a store that does not answer, so that a short outage costs time and nothing else."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safelight.errors import StoreUnavailableError
from safelight.progress import StopRequestedError, pause, stop_requested
from safelight.store.backend import Backend

T = TypeVar("T")
LOG = logging.getLogger(__name__)
FIRST_SECONDS, LONGEST_SECONDS = 0.5, 5.0
"""The pause doubles from the first to the longest."""


class Patient:
    """A backend that asks again for a while when there is no answer.

    Args:
        backend: the store itself.
        seconds: after this much time the next failure is raised.
        stops: whether a run that is asked to stop is not kept waiting; False for what goes on
            after the run.
    """

    def __init__(self, backend: Backend, seconds: float, *, stops: bool) -> None:
        self._backend = backend
        self._seconds = seconds
        self._stops = stops

    def write(
        self, key: str, source: Path | bytes, media_type: str, sha256: str | None = None
    ) -> None:
        """See `Backend.write`."""
        self.answer(lambda: self._backend.write(key, source, media_type, sha256))

    def read(self, key: str) -> bytes:
        """See `Backend.read`."""
        return self.answer(lambda: self._backend.read(key))

    def fetch(self, key: str, target: Path) -> Path:
        """See `Backend.fetch`."""
        return self.answer(lambda: self._backend.fetch(key, target))

    def exists(self, key: str) -> bool:
        """See `Backend.exists`."""
        return self.answer(lambda: self._backend.exists(key))

    def size(self, key: str) -> int | None:
        """See `Backend.size`."""
        return self.answer(lambda: self._backend.size(key))

    def list(self, prefix: str) -> list[str]:
        """See `Backend.list`."""
        return self.answer(lambda: self._backend.list(prefix))

    def delete(self, key: str) -> None:
        """See `Backend.delete`."""
        self.answer(lambda: self._backend.delete(key))

    def link(self, key: str, seconds: int, saved_as: str = "") -> str:
        """See `Backend.link`."""
        return self._backend.link(key, seconds, saved_as)

    def link_ends(self, seconds: int) -> str:
        """See `Backend.link_ends`."""
        return self._backend.link_ends(seconds)

    @property
    def inner(self) -> Backend:
        """The store itself."""
        return self._backend

    def answer(self, ask: Callable[[], T]) -> T:
        """What `ask` gives, asked again while there is no answer.

        Raises:
            StoreUnavailableError: there was none for too long.
            StopRequestedError: the run was asked to stop meanwhile.
        """
        end = time.monotonic() + self._seconds
        seconds = FIRST_SECONDS
        while True:
            try:
                return ask()
            except StoreUnavailableError as error:
                if self._stops and stop_requested():
                    raise StopRequestedError("stopped while the store did not answer") from error
                left = end - time.monotonic()
                if left <= 0:
                    raise
                LOG.warning("%s; asking again for %.0f s", error.problem, left)
                wanted = max(seconds, error.retry_after or 0.0)
            self._wait(min(wanted, left))
            seconds = min(2 * seconds, LONGEST_SECONDS)

    def _wait(self, seconds: float) -> None:
        if self._stops:
            pause(seconds)
        else:
            time.sleep(seconds)
