"""What servers that stand for providers have in common."""

import io
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image

from tests.listening import listening

SIGNATURE = "signed-0a1b2c3d4e5f6071"
"""What signs the addresses of results."""
Reply = tuple[int, Any] | tuple[int, Any, dict[str, str]]
Event = tuple[str, str, str]
"""Moment (before, done, half, after), method and path."""


class Served:
    """A provider: what it holds, what it is paid for, how it misbehaves."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[tuple[str, str]] = []
        """Method and path of each question."""
        self.headers: list[dict[str, str]] = []
        self.bodies: list[Any] = []
        self.accepted: list[str] = []
        """Our id, or where there is none its own, of each job that it was paid for, in order."""
        self.faults: list[Callable[[str, str], str | None]] = []
        self.files: dict[str, tuple[bytes, str]] = {}
        """Path to bytes and type."""
        self.polls = 2
        """Questions after which a job is done."""
        self.balance = 100.0
        self.error: Any = None
        """What every job ends with, where it is to fail."""
        self.result: tuple[bytes, str] = (picture(), "image/png")
        self.on_event: Callable[[Event], None] = lambda event: None
        self.lock = threading.RLock()
        self.looked: dict[str, int] = {}

    def answer(
        self, method: str, path: str, query: dict[str, list[str]], head: dict[str, str], body: Any
    ) -> Reply:
        """The protocol; status, JSON and headers."""
        raise NotImplementedError

    def fault(self, method: str, path: str, *what: str) -> None:
        """Let the next questions go wrong, one after the other; `-` goes right."""
        left = list(what)

        def wrong(asked: str, where: str) -> str | None:
            if left and asked == method and where.startswith(path):
                return left.pop(0)
            return None

        self.faults.append(wrong)

    def submits(self, path: str) -> int:
        """How often something was sent there."""
        return sum(1 for method, where in self.asked if method == "POST" and where == path)

    def done(self, job: str) -> bool:
        """Whether a job that is asked for again is done by now."""
        self.looked[job] = self.looked.get(job, 0) + 1
        return self.looked[job] >= self.polls

    def kept(self, job: str) -> str:
        """The address of a job's result."""
        ending = {"image/png": "png", "video/mp4": "mp4"}.get(self.result[1], "bin")
        path = f"/media/{job}.{ending}"
        self.files[path] = self.result
        return f"{self.url}{path}?signature={SIGNATURE}"


def handler(server: Served) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionError):  # who asked was killed
                super().handle()

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def do_PUT(self) -> None:
            self._serve()

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            content = self.rfile.read(length)
            method, path = self.command, parts.path
            head = {name.lower(): value for name, value in self.headers.items()}
            body: Any = content
            with suppress(ValueError):
                body = json.loads(content)
            with server.lock:
                server.asked.append((method, path))
                server.headers.append(head)
                server.bodies.append(body)
                wrong = next(filter(None, (each(method, path) for each in server.faults)), None)
            if wrong == "-":
                wrong = None
            server.on_event(("before", method, path))
            if wrong == "drop":
                return self._cut()
            if wrong and wrong.partition(":")[0].isdigit():
                status, _, rest = wrong.partition(":")
                told, _, wait = rest.partition("|")
                return self._send(
                    int(status),
                    told.encode() or b"<html>bad gateway</html>",
                    "application/json" if told else "text/html",
                    {"Retry-After": wait} if wait else {},
                )
            with server.lock:
                status, made, *more = self._made(method, path, parts.query, head, body)
            server.on_event(("done", method, path))
            if wrong == "lost":
                return self._cut()
            if wrong and wrong.startswith("redirect "):
                return self._send(302, b"", "text/plain", {"Location": wrong.split()[1]})
            kind = "application/json"
            if isinstance(made, tuple):
                made, kind = made
            data = made if isinstance(made, bytes) else json.dumps(made).encode()
            if wrong == "html":
                data, kind = b"<html>hello</html>", "text/html"
            return self._send(status, data, kind, more[0] if more else {}, wrong)

        def _made(
            self, method: str, path: str, query: str, head: dict[str, str], body: Any
        ) -> Reply:
            if path.startswith("/media/"):
                if method == "PUT":
                    server.files[path] = (body, head.get("content-type", ""))
                    return 200, {}
                if path not in server.files:
                    return 404, {}
                return 200, server.files[path]
            return server.answer(method, path, parse_qs(query), head, body)

        def _send(
            self,
            status: int,
            data: bytes,
            kind: str,
            more: dict[str, str],
            wrong: str | None = None,
        ) -> None:
            size = {"5gb": 5 * 10**9, "endless": None}.get(wrong or "", len(data))
            if "Date" in more:
                self.send_response_only(status)
            else:
                self.send_response(status)
            self.send_header("Content-Type", kind)
            for name, value in more.items():
                self.send_header(name, value)
            if size is None:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", str(size))
            self.end_headers()
            method, path = self.command, urlsplit(self.path).path
            with suppress(OSError):
                if wrong in ("5gb", "endless"):
                    return self._pour(chunked=size is None)
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
                server.on_event(("half", method, path))
                if wrong == "half":
                    return self._cut()
                self.wfile.write(data[len(data) // 2 :])
                self.wfile.flush()
                server.on_event(("after", method, path))
            return None

        def _pour(self, *, chunked: bool) -> None:
            piece = bytes(2**20)
            for _ in range(5000):
                self.wfile.write(b"100000\r\n" + piece + b"\r\n" if chunked else piece)
            self._cut()

        def _cut(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.shutdown(socket.SHUT_RDWR)

    return Handler


@contextmanager
def provided(server: Served) -> Iterator[Served]:
    """The server, answering at its `url`."""
    with listening(handler(server)) as url:
        server.url = url
        yield server


def picture(width: int = 64, height: int = 64, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def clip(folder: Path, seconds: float = 1.0, fps: int = 8, side: int = 64) -> bytes:
    from fractions import Fraction

    from tests.media.clips import write_video

    frames = (np.full((side, side, 3), 10 * at % 256, np.uint8) for at in range(int(seconds * fps)))
    path = folder / "clip.mp4"
    write_video(path, frames, Fraction(fps))
    return path.read_bytes()
