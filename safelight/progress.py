"""Steps, notes and the request to stop, passed from a running stage to whoever watches it.

Engines call `step` at each denoising step, tile or frame batch. That one call reports progress and
is the point where a run that was asked to stop does so.
"""

import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum

Listener = Callable[[int, int], None]
_listener: ContextVar[Listener | None] = ContextVar("progress_listener", default=None)
Viewer = Callable[[bytes], None]
_viewer: ContextVar[Viewer | None] = ContextVar("progress_viewer", default=None)
LARGEST_LOOK = 512 * 1024
"""Bytes of a picture of work under way."""
_notes: ContextVar[list[str] | None] = ContextVar("progress_notes", default=None)
_stop = threading.Event()
_moved: float | None = None


class StopReason(StrEnum):
    """What shall become of a run that is asked to stop."""

    CANCEL = "cancel"
    """It ends as Cancelled."""
    RESCHEDULE = "reschedule"
    """Its process must go; another one takes it up where it was."""
    GIVE_UP = "give-up"
    """It is over or somebody else's: it stops, and nothing more is told of it."""


_reason = StopReason.CANCEL


class StopRequestedError(Exception):
    """The run was asked to stop; raised at the next step."""


def request_stop(reason: StopReason = StopReason.CANCEL) -> None:
    """Ask the stage that runs in this process to stop at its next step.

    What was given up stays given up, whatever is asked later.
    """
    global _reason
    if not is_given_up():
        _reason = reason
        _stop.set()


def request_stop_in(seconds: float, reason: StopReason) -> None:
    """Ask it later, also of threads that a process which is about to end still waits for."""
    asks = threading.Timer(seconds, request_stop, (reason,))
    asks.daemon = True
    asks.start()


def end_in(seconds: float) -> None:
    """End this process then, whatever threads or clean-ups it still waits for."""
    ends = threading.Timer(seconds, os._exit, (1,))
    ends.daemon = True
    ends.start()


def clear_stop() -> None:
    """Forget an earlier request; called before a run starts."""
    _stop.clear()


def stop_requested() -> bool:
    """Whether a stop was asked for and not cleared."""
    return _stop.is_set()


def pause(seconds: float) -> None:
    """Wait between two tries of something; a request to stop ends the wait.

    Raises:
        StopRequestedError: the run was asked to stop.
    """
    if _stop.wait(seconds):
        raise StopRequestedError("stopped while it waited for another try")
    _move()


def stop_reason() -> StopReason:
    """What the last request to stop was for."""
    return _reason


def is_given_up() -> bool:
    """Whether the run in this process is over or somebody else's, so that nothing may be told."""
    return _stop.is_set() and _reason is StopReason.GIVE_UP


def step(done: int, total: int) -> None:
    """Report that `done` of `total` steps of the current stage are finished.

    Raises:
        StopRequestedError: the run was asked to stop.
    """
    if _stop.is_set():
        raise StopRequestedError(f"stopped after step {done} of {total}")
    _move()
    listener = _listener.get()
    if listener is not None:
        listener(done, total)


def show(picture: bytes) -> None:
    """Pass on a small picture of what is being made, PNG or JPEG; a large one is left out."""
    viewer = _viewer.get()
    if viewer is not None and len(picture) <= LARGEST_LOOK:
        viewer(picture)


def looked_at() -> bool:
    """Whether anybody would see what `show` passes on."""
    return _viewer.get() is not None


@contextmanager
def viewing(viewer: Viewer | None) -> Generator[None]:
    """Send pictures of the work inside to `viewer`."""
    token = _viewer.set(viewer)
    try:
        yield
    finally:
        _viewer.reset(token)


@contextmanager
def moving() -> Generator[None]:
    """A stage works in here: it makes steps, and stands still when none comes for long."""
    global _moved
    _moved = time.monotonic()
    try:
        yield
    finally:
        _moved = None


def still_seconds() -> float:
    """How long ago the stage of this process made its last step; 0 when none is at work."""
    moved = _moved
    return 0.0 if moved is None else time.monotonic() - moved


def _move() -> None:
    global _moved
    if _moved is not None:
        _moved = time.monotonic()


def note(text: str) -> None:
    """Add a remark that belongs in the result, for instance that tiles had to be made smaller.

    What was remarked before is not said again.
    """
    notes = _notes.get()
    if notes is not None and text not in notes:
        notes.append(text)


@contextmanager
def noting() -> Generator[list[str]]:
    """Collect the notes made inside apart from those around it."""
    notes: list[str] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


@contextmanager
def part(index: int, count: int) -> Generator[None]:
    """Count the steps made inside as one of `count` equal parts of the stage; `index` from 0."""
    listener = _listener.get()
    if listener is None:
        yield
        return
    token = _listener.set(lambda done, total: listener(index * total + done, count * total))
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def watching(listener: Listener | None) -> Generator[list[str]]:
    """Send the steps made inside to `listener`; yields the list that collects notes."""
    notes: list[str] = []
    listener_token, notes_token = _listener.set(listener), _notes.set(notes)
    try:
        yield notes
    finally:
        _listener.reset(listener_token)
        _notes.reset(notes_token)
