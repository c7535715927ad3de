"""Waits for a ComfyUI that was started here, and says what its log says where it does not come."""

import time
from collections.abc import Callable
from contextlib import closing

from safelight.engines.comfy.launching import checkout, log_of
from safelight.engines.comfy.server import Server
from safelight.errors import EngineOfflineError
from safelight.progress import pause
from safelight.settings import settings

LOOK_SECONDS = 0.25
ANSWER_SECONDS = 5.0
LAST_BYTES, LAST_LINES, LAST_CHARACTERS = 2000, 3, 300
"""Of a log, for a message."""


def local_server(url: str) -> Server:
    """One that was started here, for a single question."""
    return Server(url, {}, answer_seconds=ANSWER_SECONDS, patience_seconds=0)


def wait_until_it_answers(url: str, lives: Callable[[], bool], name: str) -> None:
    """Wait for one that starts.

    Args:
        url: where it will answer.
        lives: whether its process is there.
        name: of its log.

    Raises:
        EngineOfflineError: it has ended, or takes too long.
        StopRequestedError: the run was asked to stop.
    """
    ends = time.monotonic() + settings().comfy_start_seconds
    while not _answers(url):
        if not lives() or time.monotonic() > ends:
            raise _not_started(name, "does not answer" if lives() else "ended")
        pause(LOOK_SECONDS)


def last_lines(held: bytes, count: int) -> list[str]:
    """The end of a log."""
    return held.decode(errors="replace").splitlines()[-count:]


def _answers(url: str) -> bool:
    with closing(local_server(url)) as server:
        try:
            server.facts()
        except EngineOfflineError:
            return False
        return True


def _not_started(name: str, state: str) -> EngineOfflineError:
    last = " ".join(last_lines(log_of(name).read_bytes()[-LAST_BYTES:].strip(), LAST_LINES))
    return EngineOfflineError(
        f"the ComfyUI of {checkout()} {state} as it starts: "
        f"{last[-LAST_CHARACTERS:] or 'its log is empty'}",
        "look into its log: safelight comfy logs",
    )
