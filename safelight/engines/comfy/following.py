"""Follows a prompt to its end: by the websocket, and by questions where there is none."""

import time
from collections.abc import Mapping

from safelight.engines.comfy.events import ENDS, Events, Progress
from safelight.engines.comfy.jobs import Found, find, lost
from safelight.engines.comfy.refusals import failure
from safelight.engines.comfy.server import Server
from safelight.engines.graphs import Graph
from safelight.errors import EngineTimeoutError, PipelineError
from safelight.progress import show, step

LOOK_SECONDS = 0.25
"""How often a request to stop is looked for."""
ASK_SECONDS = 5.0
"""How often the server is asked while its websocket is open, which may miss a message."""
SURE_SECONDS = 1.0
"""How long a websocket is listened to before it counts as open."""
POLL_SECONDS = (0.25, 0.5, 1.0, 2.0)
"""How often it is asked without one."""


class StandsStillError(EngineTimeoutError):
    """A workflow makes no step; a server that says nothing at all may still go on with it."""


def follow(
    server: Server, graph: Graph, prompt_id: str, events: Events, stall_seconds: float
) -> Mapping[str, object]:
    """Wait until a prompt is done; its entry in the history.

    Args:
        server: where it is.
        graph: what it runs.
        prompt_id: its id, which the server has taken.
        events: the websocket of the client that sent it.
        stall_seconds: how long it may run without a step.

    Raises:
        StopRequestedError: the run was asked to stop.
        StandsStillError: it makes no step.
        PipelineError: it failed, or the server is away for too long or has forgotten it.
    """
    progress = Progress(graph, prompt_id)
    moved = told = time.monotonic()
    asked, asks, breaks = 0.0, 0, events.breaks
    while True:
        event = events.next(LOOK_SECONDS)
        now = time.monotonic()
        ends = False
        if event is not None and (event.kind == "preview" or progress.take(event)):
            moved = now
            if event.picture:
                show(event.picture)
            node = event.data.get("node", "")
            ends = event.kind in ENDS or (event.kind == "executing" and node is None)
        if event is None or ends or now - told >= LOOK_SECONDS:
            step(progress.done, progress.total)
            told = now
        wait = ASK_SECONDS if events.open else POLL_SECONDS[min(asks, len(POLL_SECONDS) - 1)]
        if not ends and now - asked < wait:
            continue
        found = server.patiently(lambda: find(server, prompt_id))
        asked, asks = time.monotonic(), asks + 1
        if found.where == "done":
            return _result(server, graph, found, progress)
        if found.where == "gone":
            restarted = events.breaks > breaks or not _still_open(events)
            raise lost(server, prompt_id, restarted=restarted)
        if found.where == "pending":
            moved = asked
        require_moving(server.url, asked - moved, stall_seconds)


def require_moving(url: str, still_seconds: float, stall_seconds: float) -> None:
    """Refuse to wait on for a prompt that makes no step.

    Raises:
        StandsStillError: it makes none for too long.
    """
    if still_seconds > stall_seconds:
        raise StandsStillError(
            f"the workflow made no step in ComfyUI at {url} for {stall_seconds:g} s",
            "look into its log, or raise SAFELIGHT_COMFY_STALL_SECONDS",
        )


def _still_open(events: Events) -> bool:
    """Whether the websocket is open; one that broke a moment ago may not have said so yet."""
    ends = time.monotonic() + SURE_SECONDS
    while events.open and time.monotonic() < ends:
        events.next(LOOK_SECONDS)
    return events.open


def _result(server: Server, graph: Graph, found: Found, progress: Progress) -> Mapping[str, object]:
    error: PipelineError | None = failure(server, graph, found.history)
    if error is not None:
        raise error
    step(progress.total, progress.total)
    return found.history
