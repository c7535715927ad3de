"""Bytes on their way to a remote store while the next stage computes."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from safelight.errors import PipelineError
from safelight.store.backend import Backend

THREADS = 3
"""Uploads at a time; each large one uses threads of its own for its parts."""
PENDING_BYTES = 512 * 2**20
"""More than this in flight makes the next `send` wait, so that memory stays bounded."""


@dataclass(frozen=True)
class _Pending:
    source: Path | bytes
    future: Future[None]


class Uploads:
    """Sends artifacts in the background and keeps records behind the artifacts they may name.

    A record is written only when everything that was sent before it has arrived. When an upload
    fails, the records behind it are dropped: what can be read is always whole.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._senders = ThreadPoolExecutor(THREADS, "upload")
        self._recorder = ThreadPoolExecutor(1, "record")
        self._changed = threading.Condition()
        self._pending: dict[str, _Pending] = {}
        self._bytes = 0
        self._failure: PipelineError | None = None

    def send(self, key: str, source: Path | bytes, media_type: str, size: int) -> None:
        """Send bytes, or a file that must stay where it is until `settle`; returns at once.

        Waits only when more than `PENDING_BYTES` are on their way.
        """
        with self._changed:
            if key in self._pending:
                return
            while self._bytes and self._bytes + size > PENDING_BYTES:
                self._changed.wait()
            self._bytes += size
            job = self._senders.submit(self._deliver, key, source, media_type, size)
            self._pending[key] = _Pending(source, job)
        job.add_done_callback(lambda done: self._arrived(key, size, done))

    def record(self, key: str, content: bytes) -> None:
        """Write a small record after everything that was sent before it has arrived."""
        with self._changed:
            before = [pending.future for pending in self._pending.values()]
            job = self._recorder.submit(self._write_record, key, content, before)
            self._pending[key] = _Pending(content, job)
        job.add_done_callback(lambda done: self._arrived(key, 0, done))

    def on_its_way(self, key: str) -> Path | bytes | None:
        """What is being sent under a key; None when nothing is, or when it has arrived."""
        with self._changed:
            pending = self._pending.get(key)
        return pending.source if pending else None

    def settle(self) -> None:
        """Wait until nothing is on its way.

        Raises:
            PipelineError: the first failure since the last call.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._pending)
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _deliver(self, key: str, source: Path | bytes, media_type: str, size: int) -> None:
        if self._backend.size(key) != size:
            self._backend.write(key, source, media_type)

    def _write_record(self, key: str, content: bytes, before: "list[Future[None]]") -> None:
        wait(before)
        failed = next((error for done in before if (error := done.exception())), None)
        if failed is None:
            self._backend.write(key, content, "application/json")

    def _arrived(self, key: str, size: int, done: "Future[None]") -> None:
        error = done.exception()
        with self._changed:
            pending = self._pending.get(key)
            if pending is not None and pending.future is done:
                del self._pending[key]
            self._bytes -= size
            if isinstance(error, PipelineError) and self._failure is None:
                self._failure = error
            self._changed.notify_all()
        if error is not None and not isinstance(error, PipelineError):
            raise error
