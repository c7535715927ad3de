"""Questions to a ComfyUI server: bounded, patient, and nothing of them in a log."""

import json
import logging
import mimetypes
import re
import ssl
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar, cast

import httpx
from pydantic import JsonValue

from safelight.errors import (
    AuthInvalidError,
    AuthMissingError,
    ContractMismatchError,
    DependencyMissingError,
    EngineOfflineError,
    EngineTimeoutError,
    InvalidMediaError,
    MissingFileError,
    one_line,
)
from safelight.progress import pause
from safelight.store.artifact import MediaKind
from safelight.store.disk import disk_errors

T = TypeVar("T")
OLDEST = (0, 3, 64)
"""Version from which on this client was tried."""
CONNECT_SECONDS = 10.0
LARGEST_ANSWER = 64 * 2**20
"""Bytes of JSON; the list of all nodes has a few million."""
LARGEST_PICTURE = 512 * 2**20
"""Bytes of one picture."""
LARGEST_CLIP = 4 * 2**30
"""Bytes of one video or sound."""
PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each further question to a server that is away; the last one again and again."""
UNTOLD = ("application/octet-stream", "application/ogg")
"""What a file of any kind may be given as; its content is looked into later."""
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


@lru_cache(maxsize=1)
def _trusted() -> ssl.SSLContext:
    """Certificates that are trusted, read once: a client is made for each question of a stage."""
    return httpx.create_ssl_context()


def _no_log() -> logging.Logger:
    """Libraries write headers and addresses into their debug logs; this one keeps nothing."""
    silent = logging.Logger("safelight.comfy", level=logging.CRITICAL + 1)
    silent.addHandler(logging.NullHandler())
    return silent


SILENT = _no_log()


@dataclass(frozen=True)
class Facts:
    """What a server says about itself."""

    version: tuple[int, int, int]
    """Of ComfyUI."""
    device: str
    """cpu, cuda, mps or what else it computes on."""

    @property
    def shown(self) -> str:
        """The version as people write it."""
        return ".".join(map(str, self.version))


class Server:
    """One ComfyUI, as it is asked."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        answer_seconds: float,
        patience_seconds: float,
    ) -> None:
        """A server that is not asked yet.

        Args:
            url: where it answers, without a slash at the end.
            headers: secrets, for the proxy before it; sent with every question.
            answer_seconds: after which a server that sends nothing is given up.
            patience_seconds: how long one that went away is asked again.
        """
        self.url = url
        self.headers = dict(headers)
        self.patience_seconds = patience_seconds
        self._client = httpx.Client(
            base_url=url,
            headers={"Accept-Encoding": "identity", **headers},
            follow_redirects=False,
            verify=_trusted(),
            timeout=httpx.Timeout(answer_seconds, connect=CONNECT_SECONDS),
        )
        self._answer_seconds = answer_seconds

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def facts(self) -> Facts:
        """Version and device, asked once.

        Raises:
            DependencyMissingError: it is no ComfyUI, or an older one.
            PipelineError: as `answer`.
        """
        found = self.answer("GET", "/system_stats")
        system = found.get("system")
        said = cast("dict[str, object]", system).get("comfyui_version") if _is(system) else None
        matched = _VERSION.match(str(said))
        if matched is None:
            raise self._no_comfy("it tells no version of ComfyUI")
        version = (int(matched[1]), int(matched[2]), int(matched[3]))
        if version < OLDEST:
            raise DependencyMissingError(
                f"ComfyUI at {self.url} is {self.said(said)}, expected "
                f"{'.'.join(map(str, OLDEST))} or newer",
                "update that ComfyUI",
            )
        devices = found.get("devices")
        first = cast("list[object]", devices)[0] if isinstance(devices, list) and devices else None
        kind = cast("dict[str, object]", first).get("type") if _is(first) else None
        return Facts(version, kind if isinstance(kind, str) and kind.isalnum() else "cpu")

    def answer(
        self, method: str, path: str, body: JsonValue = None, params: dict[str, str] | None = None
    ) -> dict[str, object]:
        """The JSON object that answers a question, asked once; an empty answer is an empty object.

        Raises:
            PipelineError: as `asked`, or what comes is no JSON object.
        """
        with self.asked(method, path, body, params) as response:
            self.require_good(response, path)
            return self.object_in(response, path)

    def patiently(self, question: Callable[[], T]) -> T:
        """Ask until there is an answer, or the patience is over.

        Raises:
            StopRequestedError: the run was asked to stop.
            PipelineError: as the question.
        """
        ends = time.monotonic() + self.patience_seconds
        for wait in (*PAUSES, *(PAUSES[-1:] * 10_000)):
            try:
                return question()
            except (EngineOfflineError, EngineTimeoutError):
                left = ends - time.monotonic()
                if left <= 0:
                    raise
                pause(min(wait, left))
        return question()

    @contextmanager
    def asked(
        self,
        method: str,
        path: str,
        body: JsonValue = None,
        params: dict[str, str] | None = None,
    ) -> Generator[httpx.Response]:
        """The answer to one question, its body unread; its status may be any.

        Raises:
            EngineOfflineError: no connection, or it broke.
            EngineTimeoutError: nothing came for too long.
        """
        content = None if body is None else json.dumps(body).encode()
        request = self._client.build_request(
            method,
            f"{self.url}{path}",
            params=params,
            content=content,
            headers={"Content-Type": "application/json"} if content else None,
        )
        with self._sent(request) as response:
            yield response

    @contextmanager
    def _sent(self, request: httpx.Request) -> Generator[httpx.Response]:
        with self._met():
            response = self._client.send(request, stream=True)
            try:
                yield response
            finally:
                response.close()

    def object_in(self, response: httpx.Response, path: str) -> dict[str, object]:
        """The JSON object of an answer.

        Raises:
            ContractMismatchError: something else, or too much.
        """
        content = bytearray()
        for piece in response.iter_bytes():
            content += piece
            if len(content) > LARGEST_ANSWER:
                raise ContractMismatchError(
                    f"ComfyUI at {self.url} answers {path} with more than "
                    f"{LARGEST_ANSWER // 2**20} MiB",
                    "look at SAFELIGHT_COMFY_URL: another service may answer there",
                )
        if not content:
            return {}
        try:
            found: object = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self._no_comfy(f"{path} is answered with no JSON object")
        return cast("dict[str, object]", found)

    def require_good(self, response: httpx.Response, path: str) -> None:
        """Refuse what is no answer to the question.

        Raises:
            AuthMissingError: it wants to know who asks.
            AuthInvalidError: it does not take our headers.
            EngineOfflineError: it has a fault, or what stands before it has.
            MissingFileError: there is no such thing.
            ContractMismatchError: anything else.
        """
        status = response.status_code
        if status == HTTPStatus.OK:
            return
        if status in (401, 403) or response.is_redirect:
            sent = "sends elsewhere" if response.is_redirect else "refuses"
            if not self.headers:
                raise AuthMissingError(
                    f"what stands before ComfyUI at {self.url} {sent} who gives no key ({status})",
                    "set SAFELIGHT_COMFY_HEADERS to the headers it wants",
                )
            raise AuthInvalidError(
                f"what stands before ComfyUI at {self.url} {sent} these headers ({status})",
                "correct SAFELIGHT_COMFY_HEADERS",
            )
        if response.is_server_error or status in (408, 429):
            raise EngineOfflineError(
                f"ComfyUI at {self.url} answers {path} with {status}",
                "look into its log; the run can be started again",
            )
        if status == HTTPStatus.NOT_FOUND:
            if path == "/system_stats":
                raise self._no_comfy(f"{path} is not there")
            raise MissingFileError(
                f"ComfyUI at {self.url} has no {path} ({status})", "look into its log"
            )
        raise ContractMismatchError(
            f"ComfyUI at {self.url} answers {path} with {status}", "look into its log"
        )

    def upload(self, file: Path, name: str, subfolder: str) -> str:
        """Send a file into the server's input folder, a piece at a time; what nodes call it.

        Raises:
            InvalidMediaError: it is larger than the server takes.
            PipelineError: as `answer`.
        """
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        with file.open("rb") as content:
            request = self._client.build_request(
                "POST",
                f"{self.url}/upload/image",
                files={"image": (name, content, kind)},
                data={"type": "input", "subfolder": subfolder},
            )
            with self._sent(request) as response:
                if response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                    raise InvalidMediaError(
                        f"a file of {file.stat().st_size / 2**20:.0f} MiB is larger than ComfyUI "
                        f"at {self.url} takes",
                        "start that ComfyUI with a larger --max-upload-size, or give a smaller one",
                    )
                self.require_good(response, "/upload/image")
                kept = self.object_in(response, "/upload/image")
        names = kept.get("name"), kept.get("subfolder", "")
        if not all(isinstance(each, str) for each in names) or not names[0]:
            raise self._no_comfy("an upload is answered without a name")
        return f"{names[1]}/{names[0]}" if names[1] else str(names[0])

    def download(self, params: dict[str, str], target: Path, kind: MediaKind = "image") -> None:
        """Write what the server has saved into a file, which is removed where that fails.

        Raises:
            InvalidMediaError: it is larger than is taken, or of another kind by its type.
            PipelineError: as `asked`.
        """
        try:
            with self.asked("GET", "/view", params=params) as response:
                self.require_good(response, "/view")
                self._write(response, self.said(params["filename"]), target, kind)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def _write(self, response: httpx.Response, name: str, target: Path, kind: MediaKind) -> None:
        told = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not told.startswith(f"{kind}/") and told not in UNTOLD:
            raise InvalidMediaError(
                f"ComfyUI at {self.url} gives {name} as {self.said(told) or 'nothing'}, "
                f"expected {kind}",
                "look at what the workflow saves, and at what stands before that ComfyUI",
            )
        most = LARGEST_PICTURE if kind == "image" else LARGEST_CLIP
        size = 0
        with disk_errors(target), target.open("wb") as file:
            for piece in response.iter_bytes():
                size += len(piece)
                if size > most:
                    raise InvalidMediaError(
                        f"{name} of ComfyUI at {self.url} has more than {most // 2**20} MiB",
                        "let the workflow save less in one file",
                    )
                file.write(piece)

    def said(self, text: object) -> str:
        """What a server said, as part of one line: short, and without our secrets."""
        short = one_line(str(text))
        for secret in sorted(self.headers.values(), key=len, reverse=True):
            if secret:
                short = short.replace(secret, "***")
        return short if len(short) <= 300 else f"{short[:297]}..."

    @contextmanager
    def _met(self) -> Generator[None]:
        """Failures of the network as ours."""
        try:
            yield
        except httpx.ConnectTimeout as error:
            raise self.offline("no connection") from error
        except httpx.TimeoutException as error:
            raise EngineTimeoutError(
                f"ComfyUI at {self.url} said nothing for {self._answer_seconds:g} s",
                "look whether it still works, or raise SAFELIGHT_COMFY_ANSWER_SECONDS",
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self.offline(f"{type(error).__name__} {self.said(error)}") from error

    def offline(self, why: str) -> EngineOfflineError:
        """The error for a server that does not answer."""
        return EngineOfflineError(
            f"ComfyUI at {self.url} does not answer ({why.strip()})",
            "start it, or correct SAFELIGHT_COMFY_URL",
        )

    def _no_comfy(self, why: str) -> DependencyMissingError:
        return DependencyMissingError(
            f"what answers at {self.url} is no ComfyUI: {why}", "correct SAFELIGHT_COMFY_URL"
        )


def _is(value: object) -> bool:
    return isinstance(value, dict)
