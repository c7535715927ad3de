"""The id by which everything that one request caused is found in all logs.

It comes from the caller or is made by the gateway, goes with the flow run as a label, and is that
of the flow run where nobody gave one. What a thread or a task does not know is that of the process:
a warm process has one run at a time.
"""

import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import httpx

HEADER = "X-Correlation-ID"
LABEL = "safelight.correlation_id"
"""Of flow runs."""
_PLAIN = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_own: ContextVar[str] = ContextVar("correlation", default="")
_of_process = ""


def is_plain(given: str) -> bool:
    """Whether an id of a caller may stand in logs and headers."""
    return _PLAIN.fullmatch(given) is not None


def current() -> str:
    """The id of what goes on here; empty where there is none."""
    return _own.get() or _of_process


@contextmanager
def correlated(known: str) -> Generator[None]:
    """Give what happens inside an id, in this task or thread."""
    token = _own.set(known)
    try:
        yield
    finally:
        _own.reset(token)


@contextmanager
def process_correlated(known: str) -> Generator[None]:
    """Give everything in this process an id, its threads too."""
    global _of_process
    before, _of_process = _of_process, known
    try:
        yield
    finally:
        _of_process = before


def labels() -> dict[str, str | int | float | bool]:
    """What a flow run is made with, so that its process knows the id again."""
    return {LABEL: known} if (known := current()) else {}


def of_run(run_id: object, told: Mapping[str, object] | None) -> str:
    """The id of a flow run: that of its label, else its own."""
    given = (told or {}).get(LABEL)
    return given if isinstance(given, str) and is_plain(given) else str(run_id)


def name_id(request: httpx.Request) -> None:
    """Name the id in a question to one of our servers."""
    if known := current():
        request.headers.setdefault(HEADER, known)
