"""A server of files that breaks in the ways that servers break, by a plan or by dice."""

import hashlib
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.listening import listening

FAULTS = (
    "none",
    "cut",
    "slow",
    "long length",
    "short length",
    "wrong bytes",
    "no range",
    "other range",
    "416",
    "circle",
    "500",
    "429",
    "reset",
    "page",
    "other content",
)


@dataclass
class Faulty:
    """What the server has, and what it does next."""

    content: bytes
    """The right file."""
    plan: list[str] = field(default_factory=list[str])
    """Faults of the next answers; after them dice, or none."""
    dice: random.Random | None = None
    """Chooses a fault for each answer."""
    asked: list[tuple[str, str, dict[str, str]]] = field(
        default_factory=list[tuple[str, str, dict[str, str]]]
    )
    """Fault, path and headers of each request."""
    url: str = ""
    """Where it answers."""

    def next_fault(self) -> str:
        if self.plan:
            return self.plan.pop(0)
        return self.dice.choice(FAULTS) if self.dice is not None else "none"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@contextmanager
def serving(faulty: Faulty) -> Iterator[Faulty]:
    """The server, as long as the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            fault = faulty.next_fault()
            faulty.asked.append((fault, self.path, dict(self.headers)))
            self.close_connection = True
            with suppress(OSError):
                self._answer(fault)

        def _plain(self, status: int, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def _answer(self, fault: str) -> None:
            if fault in ("416", "500", "429"):
                self._plain(int(fault))
                return
            if fault == "circle":
                self._plain(302, Location=self.path)
                return
            if fault == "reset":
                self.connection.shutdown(2)
                return
            content, tag = faulty.content, '"v1"'
            if fault == "wrong bytes":
                content = bytes(b ^ 255 for b in content[:100]) + content[100:]
            if fault == "other content":
                content, tag = content[::-1], '"v2"'
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            first = int(wanted[1]) if wanted and fault != "no range" else 0
            if first and self.headers.get("If-Range") != tag:
                first = 0
            if fault == "other range" and first:
                first = max(0, first - 7)
            body = content[first:]
            told = len(body) + {"long length": 50, "short length": -50}.get(fault, 0)
            self.send_response(206 if first else 200)
            self.send_header("ETag", tag)
            kind = "text/html" if fault == "page" else "application/octet-stream"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(max(told, 0)))
            if first:
                end = len(content) - 1
                self.send_header("Content-Range", f"bytes {first}-{end}/{len(content)}")
            self.end_headers()
            if fault == "cut":
                body = body[: len(body) // 2]
            if fault == "slow":
                for at in range(0, len(body), 1 + len(body) // 4):
                    self.wfile.write(body[at : at + 1 + len(body) // 4])
                    self.wfile.flush()
                    time.sleep(0.01)
                return
            self.wfile.write(body[:told] if told > 0 else body)

    with listening(Handler) as url:
        faulty.url = url
        yield faulty
