"""What a ComfyUI server tells over its websocket while a prompt waits and runs."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from safelight.engines.comfy.server import PAUSES, SILENT, Server
from safelight.engines.graphs import Graph
from safelight.progress import pause

LARGEST_MESSAGE = 32 * 2**20
"""Bytes; previews are the largest."""
MOST_WAITING = 512
"""Messages kept unread; with more of them, closing takes its time."""
OPEN_SECONDS = 5.0
PARTS = 100
"""Each node counts as so many steps."""
PREVIEW, PREVIEW_WITH_FACTS = 1, 4
"""What the first four bytes of a message of bytes say that it holds."""
ENDS = ("execution_success", "execution_error", "execution_interrupted")


@dataclass(frozen=True)
class Event:
    """One message."""

    kind: str
    """Its type; `preview` for one of bytes."""
    data: Mapping[str, object]
    """What it says."""
    picture: bytes = b""
    """PNG or JPEG of a preview."""


class Events:
    """The websocket of one client, opened again with growing pauses when it breaks."""

    def __init__(self, server: Server, client_id: str) -> None:
        self._server = server
        self._client_id = client_id
        self._socket: ClientConnection | None = None
        self._failures = 0
        self._next_try = 0.0
        self.breaks = 0
        """How often an open one broke."""

    @property
    def open(self) -> bool:
        """Whether the server tells anything now."""
        return self._socket is not None

    def next(self, seconds: float) -> Event | None:
        """The next message within some seconds; None where there is none.

        Raises:
            StopRequestedError: the run was asked to stop while no websocket was open.
        """
        if self._socket is None:
            left = self._next_try - time.monotonic()
            if left > 0:
                pause(min(left, seconds))
                return None
            self._connect()
            return None
        try:
            told = self._socket.recv(timeout=seconds)
        except TimeoutError:
            return None
        except (ConnectionClosed, WebSocketException, OSError):
            self.breaks += 1
            self.close()
            return None
        return _event(told)

    def close(self) -> None:
        """Close the websocket; `next` opens it again."""
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()

    def _connect(self) -> None:
        address = f"ws{self._server.url.removeprefix('http')}/ws?clientId={self._client_id}"
        try:
            self._socket = connect(
                address,
                additional_headers=self._server.headers,
                open_timeout=OPEN_SECONDS,
                close_timeout=1.0,
                max_size=LARGEST_MESSAGE,
                max_queue=MOST_WAITING,
                logger=SILENT,  # it would write the headers
            )
            self._failures = 0
        except (OSError, WebSocketException, TimeoutError):  # the prompt is asked for instead
            wait = PAUSES[min(self._failures, len(PAUSES) - 1)]
            self._failures += 1
            self._next_try = time.monotonic() + wait


class Progress:
    """How far a prompt is, in steps of its nodes."""

    def __init__(self, graph: Graph, prompt_id: str) -> None:
        self._graph = graph
        self._prompt_id = prompt_id
        self._finished: set[str] = set()
        self._running: dict[str, int] = {}

    @property
    def total(self) -> int:
        """Steps of all nodes."""
        return PARTS * len(self._graph)

    @property
    def done(self) -> int:
        """Steps that are done."""
        running = sum(part for name, part in self._running.items() if name not in self._finished)
        return PARTS * len(self._finished) + running

    def take(self, event: Event) -> bool:
        """Count what a message says; whether it is about this prompt."""
        data = event.data
        if data.get("prompt_id") != self._prompt_id:
            return False
        if event.kind == "execution_cached":
            nodes = data.get("nodes")
            for name in cast("list[object]", nodes) if isinstance(nodes, list) else ():
                self._finish(name)
        elif event.kind == "executing":
            for name in list(self._running):
                self._finish(name)
            self._part(data.get("node"), 0, 1)
        elif event.kind == "executed":
            self._finish(data.get("node"))
        elif event.kind == "progress":
            self._part(data.get("node"), data.get("value"), data.get("max"))
        elif event.kind == "progress_state":
            nodes = data.get("nodes")
            for name, told in cast("dict[str, object]", nodes or {}).items():
                state = cast("dict[str, object]", told) if isinstance(told, dict) else {}
                if state.get("state") == "finished":
                    self._finish(name)
                else:
                    self._part(name, state.get("value"), state.get("max"))
        return True

    def _finish(self, name: object) -> None:
        self._running.pop(str(name), None)
        if str(name) in self._graph:
            self._finished.add(str(name))

    def _part(self, name: object, value: object, most: object) -> None:
        if str(name) not in self._graph:
            return
        if not isinstance(value, int | float) or not isinstance(most, int | float) or most <= 0:
            return
        part = int(PARTS * min(max(value / most, 0), 1))
        self._running[str(name)] = max(self._running.get(str(name), 0), part)


def _event(told: str | bytes) -> Event:
    if isinstance(told, bytes):
        return Event("preview", {}, _preview(told))
    try:
        found: object = json.loads(told)
    except (ValueError, RecursionError):
        return Event("", {})
    message = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    data = message.get("data")
    return Event(
        str(message.get("type", "")),
        cast("dict[str, object]", data) if isinstance(data, dict) else {},
    )


def _preview(told: bytes) -> bytes:
    """The picture of a message of bytes; empty where it holds none."""
    kind = int.from_bytes(told[:4], "big")
    if kind == PREVIEW:
        return told[8:]
    if kind == PREVIEW_WITH_FACTS:
        return told[8 + int.from_bytes(told[4:8], "big") :]
    return b""
