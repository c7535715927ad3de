"""Questions to a provider: bounded, none of them in a log, and it is told what may have arrived."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import cast
from urllib.parse import urlsplit

import httpx
from pydantic import JsonValue

from safelight.errors import (
    ContractMismatchError,
    EngineOfflineError,
    EngineTimeoutError,
    PipelineError,
    RateLimitExceededError,
    one_line,
)
from safelight.installed import version
from safelight.observing.logs import timed
from safelight.settings import settings

CONNECT_SECONDS = 10.0
LARGEST_ANSWER = 64 * 2**20
"""Bytes of JSON; some pictures come inside of it."""
LONGEST_SAID = 300
"""Characters of what a provider says that go into a message."""
LEAST_SECRET = 6
"""Characters from which a part of a key is looked for in texts of others."""
_ADDRESS = re.compile(r"https?://\S+")


class NotSentError(EngineOfflineError):
    """Nothing of the question has arrived."""


class LostError(EngineOfflineError):
    """The question may have arrived; its answer has not."""

    def __init__(
        self, problem: str, remedy: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(problem, remedy)
        self.headers = dict(headers or {})
        """What came of the answer."""


class LateError(EngineTimeoutError):
    """The question may have arrived; its answer takes too long."""


class SlowDownError(RateLimitExceededError):
    """A provider takes no more questions for now, or no more work beside what it has."""

    def __init__(
        self,
        problem: str,
        remedy: str | None = None,
        wait_seconds: float | None = None,
        concurrent: bool = False,
    ) -> None:
        super().__init__(problem, remedy)
        self.wait_seconds = wait_seconds
        self.concurrent = concurrent


@dataclass(frozen=True)
class Answer:
    """What a provider answers."""

    status: int
    """Of HTTP."""
    headers: Mapping[str, str]
    """By their names in small letters."""
    told: JsonValue
    """The JSON; None where it is none."""

    @property
    def good(self) -> bool:
        """Whether it says yes."""
        return 200 <= self.status < 300

    @property
    def fields(self) -> Mapping[str, JsonValue]:
        """Of the JSON object; none where it is none."""
        return self.told if isinstance(self.told, dict) else {}

    @property
    def wait_seconds(self) -> float | None:
        """What `Retry-After` asks for."""
        return retry_after(self.headers.get("retry-after", ""), self.headers.get("date", ""))


def retry_after(text: str, date: str) -> float | None:
    """Seconds that a header asks to wait, told as a number or a time; None where it tells none."""
    if text.strip().isdigit():
        return float(text)
    try:
        until, now = parsedate_to_datetime(text), parsedate_to_datetime(date)
    except (ValueError, TypeError):
        return None
    if until.tzinfo is None or now.tzinfo is None:
        return None
    return max(0.0, (until - now).total_seconds())


@lru_cache(maxsize=1)
def _client() -> httpx.Client:
    """Of this process; certificates are read once."""
    return httpx.Client(
        follow_redirects=False,
        headers={
            "User-Agent": f"safelight/{version('safelight')}",
            "Accept-Encoding": "identity",
        },
    )


@dataclass(frozen=True)
class Provider:
    """Whom to ask, and what must not be seen."""

    name: str
    """For people."""
    secrets: tuple[str, ...] = field(repr=False, default=())
    """Keys; no text of others that holds one gets into a message."""

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: JsonValue = None,
        content: bytes | Iterable[bytes] | None = None,
        seconds: float | None = None,
    ) -> Answer:
        """The answer to a question that is asked once; its status may be any.

        Args:
            method: of HTTP.
            url: where to ask.
            headers: with the key.
            body: JSON to send.
            content: bytes to send instead.
            seconds: after which a provider that says nothing is given up; None is the setting.

        Raises:
            NotSentError: there was no connection.
            LostError: it broke.
            LateError: nothing came for too long.
            ContractMismatchError: the answer is larger than any.
        """
        host, path = address_of(url)
        with timed(
            "call to a provider", provider=self.name, method=method, host=host, path=path
        ) as told:
            answer = self._asked(method, url, headers, body, content, seconds)
            told["status"] = answer.status
        return answer

    def _asked(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: JsonValue,
        content: bytes | Iterable[bytes] | None,
        seconds: float | None,
    ) -> Answer:
        seconds = seconds or settings().provider_answer_seconds
        kind = {"Content-Type": "application/json"} if body is not None else {}
        heads: dict[str, str] = {}
        try:
            request = _client().build_request(
                method,
                url,
                headers={**kind, **headers},
                content=json.dumps(body).encode() if body is not None else content,
                timeout=httpx.Timeout(seconds, connect=CONNECT_SECONDS),
            )
            response = _client().send(request, stream=True)
            heads = {name.lower(): value for name, value in response.headers.items()}
            try:
                told = self._read(response)
            finally:
                response.close()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NotSentError(
                f"{self.name} does not answer ({type(error).__name__})",
                "look at the network and at the provider's page of its state",
            ) from error
        except httpx.TimeoutException as error:
            raise LateError(
                f"{self.name} said nothing for {seconds:g} s",
                "run it again later, or raise SAFELIGHT_PROVIDER_ANSWER_SECONDS",
            ) from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise NotSentError(
                f"{self.name} has no such address", "correct its address in the settings"
            ) from error
        except httpx.HTTPError as error:
            raise LostError(
                f"the connection to {self.name} broke ({type(error).__name__})",
                "look at the network and at the provider's page of its state",
                heads,
            ) from error
        return Answer(response.status_code, heads, told)

    def said(self, text: object) -> str:
        """What a provider said, as part of one line: short, without keys and signed addresses."""
        short = _ADDRESS.sub(lambda found: found[0].partition("?")[0], one_line(str(text)))
        for secret in self.secrets:
            for part in (secret, *secret.split(":")):
                if len(part) >= LEAST_SECRET:
                    short = short.replace(part, "***")
        return short if len(short) <= LONGEST_SAID else f"{short[: LONGEST_SAID - 3]}..."

    def _read(self, response: httpx.Response) -> JsonValue:
        content = bytearray()
        for piece in response.iter_bytes():
            content += piece
            if len(content) > LARGEST_ANSWER:
                raise ContractMismatchError(
                    f"{self.name} answers with more than {LARGEST_ANSWER // 2**20} MiB",
                    "look at its address in the settings: another service may answer there",
                )
        try:
            return cast("JsonValue", json.loads(content)) if content else None
        except (ValueError, RecursionError):
            return None


def address_of(url: str) -> tuple[str, str]:
    """Host and path of an address, without what may be secret in it."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.path


def passing(error: PipelineError) -> bool:
    """Whether the same question may be answered a moment later."""
    return isinstance(error, EngineOfflineError | EngineTimeoutError | RateLimitExceededError)
