"""A Prefect server that does not answer every question as it should: a proxy before a real one."""

import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Literal
from urllib.parse import urlsplit

from tests.listening import listening

LOST = "lost"
"""The server hears the question, and its answer gets lost."""
Fault = int | Literal["lost"]
_OF_THE_CONNECTION = ("connection", "accept-encoding", "transfer-encoding", "host")


@dataclass
class Unwell:
    """The way to the server."""

    url: str
    """Of its API, as PREFECT_API_URL takes it."""
    met: list[str] = field(default_factory=list)
    """Questions that met a fault."""
    fault: Callable[[str, str, bytes], Fault | None] = lambda method, path, body: None
    """What befalls a question with this method, path and body; None lets it pass."""
    headers: dict[str, str] = field(default_factory=dict)
    """Of answers with a fault."""

    def once_each(self, fault: Fault, *questions: tuple[str, str]) -> None:
        """Let each of some questions, by method and part of the path, meet a fault once."""
        left = list(questions)

        def befalls(method: str, path: str, body: bytes) -> Fault | None:
            for question in left:
                if method == question[0] and question[1] in path:
                    left.remove(question)
                    return fault
            return None

        self.met.clear()
        self.fault = befalls


@contextmanager
def unwell(api_url: str) -> Iterator[Unwell]:
    """A way to the server at `api_url` on a free port of loopback."""
    there = urlsplit(api_url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            if self.headers.get("Upgrade"):
                self.send_error(503)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = known.fault(self.command, self.path, body)
            if fault is not None:
                known.met.append(f"{self.command} {self.path}")
            if isinstance(fault, int):
                self._say(fault, known.headers, b'{"exception_message": "unwell"}')
                return
            server = http.client.HTTPConnection(there.hostname or "", there.port or 0, timeout=60)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _OF_THE_CONNECTION}
            try:
                server.request(self.command, self.path, body, headers)
                answer = server.getresponse()
                data = answer.read()
            finally:
                server.close()
            if fault == LOST:
                self.close_connection = True
                return
            kind = {"Content-Type": answer.getheader("Content-Type") or "text/plain"}
            self._say(answer.status, kind, data)

        def _say(self, status: int, headers: dict[str, str], data: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        for method in ("GET", "PUT", "HEAD", "POST", "DELETE", "PATCH"):
            vars()[f"do_{method}"] = pass_on
        del method

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as address:
        known = Unwell(f"{address}{there.path}")
        yield known
