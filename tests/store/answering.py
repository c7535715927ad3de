"""A small S3 service that answers what a test tells it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from pydantic import SecretStr

from safelight.store.s3 import Bucket
from tests.listening import listening


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What is answered; a body goes with everything but HEAD."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def refusal(status: int, code: str, message: str = "", **headers: str) -> Answer:
    """An answer as S3 words it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(status, body.encode(), {k.replace("_", "-"): v for k, v in headers.items()})


class Service:
    """The service; `answer` may be changed at any time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []
        self.answer: Callable[[Asked], Answer] = lambda asked: Answer(headers={"ETag": '"x"'})

    def bucket(self, **more: str) -> Bucket:
        """The store over it."""
        keys = {"access_key": SecretStr("key"), "secret_key": SecretStr("secret")}
        return Bucket(
            "bucket", "", endpoint_url=self.url, region="us-east-1", path_style=True, **keys, **more
        )


@contextmanager
def service() -> Iterator[Service]:
    """One on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, body)
            known.asked.append(asked)
            said = known.answer(asked)
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            hidden = self.command == "HEAD"
            if not (hidden and "Content-Length" in said.headers):
                self.send_header("Content-Length", "0" if hidden else str(len(said.body)))
            self.end_headers()
            if not hidden:
                self.wfile.write(said.body)

        for method in ("GET", "PUT", "HEAD", "POST", "DELETE"):
            vars()[f"do_{method}"] = answer
        del method

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as address:
        known = Service(address)
        yield known
