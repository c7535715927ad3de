"""Bytes on their way to a remote store while the next stage computes."""

import atexit
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from weakref import WeakSet

from safelight.errors import PipelineError
from safelight.progress import StopRequestedError, stop_requested
from safelight.store.aging import refreshed
from safelight.store.backend import Backend

LOG = logging.getLogger(__name__)
THREADS = 3
"""Uploads at a time."""
PENDING_BYTES = 512 * 2**20
PENDING_ARTIFACTS = 64
"""More than these on their way make the next `send` wait, so that memory and disk stay bounded."""
STOP_CHECK_SECONDS = 0.5
AGAIN_SECONDS = (2.0, 10.0)
"""Pauses before what could not be sent is tried again, each try with the backend's patience."""
EXIT_SECONDS = 10
"""A process that ends without `settle` waits this long for what is on its way, and no longer."""


@dataclass(frozen=True)
class _Pending:
    source: Path | bytes
    job: "Future[None]"


class Uploads:
    """Sends artifacts in the background and keeps records behind the artifacts they may name.

    A record is written only when everything that was sent before it has arrived. When an upload
    fails, the records behind it are dropped: what can be read is always whole.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        pending_bytes: int = PENDING_BYTES,
        pending_artifacts: int = PENDING_ARTIFACTS,
        again_seconds: tuple[float, ...] = AGAIN_SECONDS,
    ) -> None:
        self._backend = backend
        self._again_seconds = again_seconds
        self._most_bytes = pending_bytes
        self._most_artifacts = pending_artifacts
        self._senders = _Daemons(THREADS, "upload")
        self._recorder = _Daemons(1, "record")  # one: records arrive in order
        self._changed = threading.Condition()
        self._pending: dict[str, _Pending] = {}
        self._sending = 0
        self._bytes = 0
        self._lost: set[str] = set()
        self._failure: BaseException | None = None
        _open.add(self)

    def send(self, key: str, source: Path | bytes, media_type: str, sha256: str) -> None:
        """Send bytes, or a file that is ours from now on and is removed in the end.

        Returns at once, unless as much as is allowed is on its way already.
        """
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        with self._changed:
            self._changed.wait_for(lambda: key in self._pending or self._fits(size))
            if key in self._pending:
                _drop(source)
                return
            self._sending += 1
            self._bytes += size
            job = self._senders.submit(lambda: self._deliver(key, source, size, media_type, sha256))
            self._pending[key] = _Pending(source, job)
        job.add_done_callback(lambda done: self._arrived(key, done, source, size))

    def record(self, key: str, content: bytes) -> None:
        """Write a small record after everything that was sent before it has arrived."""
        with self._changed:
            before = [pending.job for pending in self._pending.values()]
            job = self._recorder.submit(lambda: self._write_record(key, content, before))
            self._pending[key] = _Pending(content, job)
        job.add_done_callback(lambda done: self._arrived(key, done))

    def on_its_way(self, key: str) -> Path | bytes | None:
        """What is being sent under a key; None when nothing is, or when it has arrived."""
        with self._changed:
            pending = self._pending.get(key)
        return pending.source if pending else None

    def settle(self) -> None:
        """Wait until nothing is on its way.

        Raises:
            PipelineError: the first failure since the last call.
            StopRequestedError: the run was asked to stop; the rest goes on in the background.
        """
        while left := self.wait(STOP_CHECK_SECONDS):
            if stop_requested():
                raise StopRequestedError(f"stopped while {left} artifacts and records were sent")
        with self._changed:
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def wait(self, seconds: float | None = None) -> int:
        """Wait until nothing is on its way, or for some time; how much still is."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending, seconds)
            return len(self._pending)

    def _fits(self, size: int) -> bool:
        if not self._sending:
            return True
        return self._sending < self._most_artifacts and self._bytes + size <= self._most_bytes

    def _deliver(
        self, key: str, source: Path | bytes, size: int, media_type: str, sha256: str
    ) -> None:
        try:
            self._tried(lambda: self._sent(key, source, size, media_type, sha256))
        except BaseException:
            with self._changed:
                self._lost.add(key)
            raise
        with self._changed:
            self._lost.discard(key)

    def _tried(self, send: Callable[[], None]) -> None:
        """Send, again when that fails for a reason that passes: the stage is over."""
        for seconds in self._again_seconds:
            try:
                send()
            except PipelineError as error:
                if not error.transient:
                    raise
                LOG.warning("%s; sent again in %.0f s", error.problem, seconds)
                time.sleep(seconds)
            else:
                return
        send()

    def _sent(
        self, key: str, source: Path | bytes, size: int, media_type: str, sha256: str
    ) -> None:
        if self._backend.size(key) != size or not refreshed(self._backend, key):
            self._backend.write(key, source, media_type, sha256)

    def _write_record(self, key: str, content: bytes, before: "list[Future[None]]") -> None:
        wait(before)
        with self._changed:
            # an upload that failed before this record was made is found by its name
            lost = any(name.encode() in content for name in self._lost)
        if not lost and all(job.exception() is None for job in before):
            self._tried(lambda: self._backend.write(key, content, "application/json"))

    def _arrived(
        self, key: str, done: "Future[None]", source: Path | bytes = b"", size: int | None = None
    ) -> None:
        with self._changed:
            pending = self._pending.get(key)
            if pending is not None and pending.job is done:
                del self._pending[key]
            if size is not None:
                self._sending -= 1
                self._bytes -= size
            if self._failure is None:
                self._failure = done.exception()
            self._changed.notify_all()
        _drop(source)


class _Daemons:
    """Threads that work off a queue and never keep a process from ending.

    Those of `concurrent.futures` are joined at exit, which hangs while a store does not answer.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._jobs: SimpleQueue[tuple[Future[None], Callable[[], None]]] = SimpleQueue()
        self._idle = threads
        self._name = name

    def submit(self, job: Callable[[], None]) -> "Future[None]":
        """Run a job when a thread is free. Not for calls from several threads at once."""
        future: Future[None] = Future()
        self._jobs.put((future, job))
        if self._idle:
            self._idle -= 1
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        return future

    def _work(self) -> None:
        while True:
            future, job = self._jobs.get()
            with _Outcome(future):
                job()
            del future, job  # else an idle thread holds what it sent last


class _Outcome:
    """Hands what happens inside to a future, an exception too."""

    def __init__(self, future: "Future[None]") -> None:
        self._future = future

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is None:
            self._future.set_result(None)
        else:
            self._future.set_exception(error)
        return True


_open: "WeakSet[Uploads]" = WeakSet()


@atexit.register
def _at_exit() -> None:
    end = time.monotonic() + EXIT_SECONDS
    left = sum(uploads.wait(max(end - time.monotonic(), 0)) for uploads in list(_open))
    if left:
        LOG.warning(
            "%d artifacts and records were not stored within %d s of the end; "
            "the stages that made them run again",
            left,
            EXIT_SECONDS,
        )


def _drop(source: Path | bytes) -> None:
    if isinstance(source, Path):
        source.unlink(missing_ok=True)
