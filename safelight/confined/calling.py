"""Calls a function of ours on a foreign file in another process, and lives on whatever happens.

Decoders are large programs in C, and a file may make one loop, take all memory or crash. The other
process is held to limits by the kernel and is kept for the next file. Where it ends, the file is
refused and a fresh process takes the next one.
"""

import atexit
import logging
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from pydantic import JsonValue, ValidationError

import safelight.errors
from safelight.children import start_child
from safelight.confined.child import Request, answer_type
from safelight.confined.limits import GIB, Limits, limits_for
from safelight.confined.transport import Array, array_of, close, receive, send, shared
from safelight.errors import InvalidMediaError, OutOfMemoryError, PipelineError

T = TypeVar("T")

MOST_PROCESSES = 4
"""At a time; further calls wait."""
MOST_IDLE = 2
"""Processes that are kept for the next file."""
ENDING_SECONDS = 5.0
"""Until a process that gave up its socket is gone."""
CALLS = 1000
"""After which a process is replaced, since decoders leak."""
_HANDED_ON = (
    "HOME",
    "LANG",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONPATH",
    "TMPDIR",
    "TZ",
    "VIRTUAL_ENV",
)
"""Names of variables that the process gets; keys and passwords are not among them."""
_OWN = {
    # each thread's reserves count as memory, though nothing lies there
    "MALLOC_ARENA_MAX": "2",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
_log = logging.getLogger(__name__)


@dataclass
class _Confined:
    """One process, and our end of the socket to it."""

    process: "subprocess.Popen[bytes]"
    socket: socket.socket
    calls: int = 0

    def end(self) -> int:
        """Kill it; how it ended."""
        with suppress(OSError):
            self.socket.close()
        self.process.kill()
        return self.process.wait()

    def ended(self) -> int:
        """How it ended by itself."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(ENDING_SECONDS)
        return self.end()


@dataclass
class _Processes:
    """Those that wait for a file."""

    idle: list[_Confined] = field(default_factory=list[_Confined])
    lock: threading.Lock = field(default_factory=threading.Lock)
    free: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(MOST_PROCESSES))

    def take(self) -> _Confined:
        with self.lock:
            while self.idle:
                waiting = self.idle.pop()
                if waiting.process.poll() is None:
                    return waiting
                waiting.end()
        return _started()

    def give(self, process: _Confined) -> None:
        with self.lock:
            if len(self.idle) < MOST_IDLE and process.calls < CALLS:
                self.idle.append(process)
                return
        process.end()

    def end(self) -> None:
        with self.lock:
            while self.idle:
                self.idle.pop().end()


_processes = _Processes()
atexit.register(lambda: _processes.end())


def _forget() -> None:
    global _processes
    _processes = _Processes()  # those are the parent's


os.register_at_fork(after_in_child=_forget)


def call_confined(
    function: Callable[..., tuple[T, Array | None]],
    *given: JsonValue,
    name: str,
    file_bytes: int,
    data: bytes | None = None,
) -> tuple[T, Array | None]:
    """Call a function of a module of ours in a confined process.

    Args:
        function: of a module, not of a class; returns what it found, typed so that pydantic writes
            and reads it, and an array of uint8 or int64 or None.
        given: its arguments.
        name: of the file, for messages.
        file_bytes: its size, which the time it may take grows with.
        data: handed over as the first argument, beside the messages.

    Returns:
        What the function returned; the array is a copy of its own.

    Raises:
        InvalidMediaError: the call did not end within its limits, or the process crashed.
        PipelineError: what the function raised.
        OutOfMemoryError: no process can be started.
    """
    limits = limits_for(file_bytes)
    request = Request(
        module=function.__module__, function=function.__name__, given=list(given), limits=limits
    )
    with _processes.free:
        process = _processes.take()
        try:
            answer, handle = _asked(process, request, data, name)
        except BaseException:
            process.end()
            raise
        _processes.give(process)
    try:
        return _read(function, cast("dict[str, Any]", answer), handle, name, limits)
    finally:
        close(handle)


def prepare() -> None:
    """Start a process for the first file, which takes half a second that nobody need wait for."""
    with suppress(OutOfMemoryError):  # said when a file comes
        _processes.give(_started())


def _started() -> _Confined:
    ours, theirs = socket.socketpair()
    environment = {key: os.environ[key] for key in _HANDED_ON if key in os.environ} | _OWN
    try:
        # what C libraries print is no message to anybody
        with theirs, open(os.devnull, "wb") as nowhere:
            process = start_child(
                "safelight.confined.child",
                [str(theirs.fileno())],
                environment=environment,
                output=nowhere,
                handles=[theirs.fileno()],
            )
    except OSError as error:
        ours.close()
        raise OutOfMemoryError(
            f"no process can be started that looks into files: {error.strerror}",
            "raise the limit of processes of this container or user",
        ) from error
    return _Confined(process, ours)


def _asked(
    process: _Confined, request: Request, data: bytes | None, name: str
) -> tuple[JsonValue, int | None]:
    limits = request.limits
    process.calls += 1
    handle = None if data is None else shared(data)
    try:
        process.socket.settimeout(limits.patience_seconds)
        send(process.socket, request.model_dump(mode="json"), handle)
        return receive(process.socket)
    except TimeoutError as error:
        raise _too_long(name, f"{limits.patience_seconds:.0f} s", limits) from error
    except (EOFError, ConnectionError) as error:
        raise _ended(name, process.ended(), limits) from error
    except ValueError as error:
        raise InvalidMediaError(f"{name} made a decoder give {error}", "export it again") from error
    finally:
        close(handle)


def _read(
    function: Callable[..., tuple[T, Array | None]],
    answer: dict[str, Any],
    handle: int | None,
    name: str,
    limits: Limits,
) -> tuple[T, Array | None]:
    try:
        if "refused" in answer:
            kind, problem, remedy = answer["refused"]
            raise _kind(kind)(str(problem), str(remedy))
        if "broken" in answer:
            if answer["broken"] == "memory":
                raise _too_large(name, limits)
            _log.debug("%s: %s", name, answer["trace"])
            raise InvalidMediaError(
                f"{name} cannot be looked into: {answer['broken']}", "export it again"
            )
        found: T = answer_type(function).validate_python(answer["found"])
        array = None if handle is None else array_of(handle, answer["kind"], answer["shape"])
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise InvalidMediaError(
            f"{name} made a decoder answer what is no answer", "export it again"
        ) from error
    return found, array


def _kind(name: object) -> type[PipelineError]:
    found: object = getattr(safelight.errors, str(name), None)
    if isinstance(found, type) and issubclass(found, PipelineError):
        return found
    return InvalidMediaError


def _ended(name: str, status: int, limits: Limits) -> InvalidMediaError:
    if status == -signal.SIGXCPU:
        return _too_long(name, f"{limits.seconds} s of a processor", limits)
    if status == -signal.SIGKILL:
        return _too_large(name, limits)
    how = signal.Signals(-status).name if status < 0 else f"status {status}"
    return InvalidMediaError(
        f"{name} made a decoder crash ({how}); expected a file that can be looked into",
        "export it again with another program",
    )


def _too_long(name: str, taken: str, limits: Limits) -> InvalidMediaError:
    return InvalidMediaError(
        f"looking into {name} took more than {taken}, at most {limits.seconds} s of a processor "
        "are given to a file of its size",
        "export it again, or raise SAFELIGHT_LOOK_SECONDS",
    )


def _too_large(name: str, limits: Limits) -> InvalidMediaError:
    return InvalidMediaError(
        f"looking into {name} takes more than {limits.memory_bytes / GIB:.1f} GiB of memory",
        "export it again in a smaller size, or raise SAFELIGHT_LOOK_MEMORY_GIB",
    )
