"""Asks servers of strangers for files: redirects by hand, tokens for one host, nothing private."""

import ipaddress
import json
import logging
import socket
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast
from urllib.parse import SplitResult, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
from pydantic import SecretStr

from safelight.errors import (
    AuthInvalidError,
    AuthMissingError,
    DownloadFailedError,
    ForbiddenPathError,
    MissingFileError,
    PipelineError,
    RateLimitExceededError,
)
from safelight.installed import version

MOST_REDIRECTS = 8
CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0
LARGEST_ANSWER = 16 * 2**20
"""Bytes of what a hub tells about a model."""
REDIRECTS = (301, 302, 303, 307, 308)
Resolve = Callable[[str], Iterable[str]]


class PassingError(DownloadFailedError):
    """Something that may be over a moment later."""


class _NoQueries(logging.Filter):
    """Signatures stand in the queries of addresses, which the client writes into its log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Mend the record in place; False where it holds the headers of an answer."""
        if str(record.msg).startswith("receive_response_headers"):
            return False
        if isinstance(record.args, tuple):
            record.args = tuple(
                each.copy_with(query=None, username=None, password=None)
                if isinstance(each, httpx.URL)
                else each
                for each in record.args
            )
        return True


for _name in ("httpx", "httpcore.http11", "httpcore.http2"):
    logging.getLogger(_name).addFilter(_NoQueries())


def addresses_of(host: str) -> Iterable[str]:
    """Numbers of a host; none where a proxy has to know them.

    Raises:
        PassingError: nobody knows any.
    """
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError as error:
        if getproxies().keys() - {"no"}:
            return ()
        raise PassingError(
            f"{host} has no address: {error.strerror}",
            "correct the address, or look at the network",
        ) from error


@dataclass(frozen=True)
class Web:
    """Servers, as they are asked for files."""

    resolve: Resolve = addresses_of
    """From a host to its addresses."""
    read_seconds: float = READ_SECONDS
    """After which a server that sends nothing is given up."""
    _client: httpx.Client = field(
        default_factory=lambda: httpx.Client(
            follow_redirects=False,
            headers={
                "User-Agent": f"safelight/{version('safelight')}",
                "Accept-Encoding": "identity",
            },
        )
    )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    @contextmanager
    def asked(
        self,
        url: str,
        token: SecretStr | None,
        headers: Mapping[str, str],
        shown: str,
        own: str | None = None,
    ) -> Generator[httpx.Response]:
        """The answer behind all redirects, its body unread; its status may be any.

        Args:
            url: where to ask.
            token: is sent to the host of `url` and no other.
            headers: further ones.
            shown: what messages call it.
            own: where somebody else named `url`: the one address, scheme and host, that may lie
                inside a private network.

        Raises:
            ForbiddenPathError: it leads from a public address to a private one.
            PassingError: no answer.
            DownloadFailedError: redirects without an end.
        """
        first = urlsplit(url)
        foreign = own is not None
        public = foreign or not self._is_private(first.hostname or "")
        here, seen = url, set[str]()
        while True:
            parts = self._required(here, first.scheme, shown)
            trusted = foreign and f"{parts.scheme}://{parts.netloc}" == own
            led = (foreign or here != url) and public and not trusted
            if led and self._is_private(parts.hostname or ""):
                raise ForbiddenPathError(
                    f"{shown} leads to {parts.hostname}, an address inside a private network",
                    "look at the address: a public server has no business there",
                )
            same = (parts.scheme, parts.netloc) == (first.scheme, first.netloc)
            told = {"Authorization": f"Bearer {token.get_secret_value()}"} if token and same else {}
            with self._answer(here, {**headers, **told}, shown) as response:
                self._require_peer(response, public and not trusted, shown)
                where = response.headers.get("location")
                if response.status_code not in REDIRECTS or where is None:
                    yield response
                    return
            seen.add(here)
            here = urljoin(here, where)
            if here in seen or len(seen) > MOST_REDIRECTS:
                raise DownloadFailedError(
                    f"{shown} leads in circles, {len(seen)} times from one address to another",
                    "correct the address, or wait until its server is mended",
                )

    def object_at(self, url: str, token: SecretStr | None) -> Mapping[str, object]:
        """A JSON object.

        Raises:
            PipelineError: there is none.
        """
        shown = url.partition("?")[0]
        with self.asked(url, token, {}, shown) as response:
            require_good(response, token, shown)
            content = bytearray()
            try:
                for piece in response.iter_bytes():
                    content += piece
                    if len(content) > LARGEST_ANSWER:
                        break
            except httpx.HTTPError as error:
                raise passing(shown, error) from error
        try:
            found: object = json.loads(content) if len(content) <= LARGEST_ANSWER else None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise DownloadFailedError(f"{shown} answers no JSON object", "try again later")
        return cast("dict[str, object]", found)

    def require_outside(self, url: str, own: str, shown: str) -> None:
        """Refuse an address that somebody else named and that leads inside.

        Args:
            url: the address.
            own: as in `asked`.
            shown: what messages call it.

        Raises:
            ForbiddenPathError: it lies inside a private network, or has no encryption.
            DownloadFailedError: it is no address of the web.
        """
        parts = self._required(url, urlsplit(own).scheme, shown)
        if f"{parts.scheme}://{parts.netloc}" != own and self._is_private(parts.hostname or ""):
            raise ForbiddenPathError(
                f"{shown} leads to {parts.hostname}, an address inside a private network",
                "look at the address: a public server has no business there",
            )

    def _required(self, url: str, first: str, shown: str) -> SplitResult:
        """The parts of an address that may be asked."""
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
        except ValueError:
            parts, host = urlsplit(""), ""
        if parts.scheme not in ("https", "http") or not host:
            raise DownloadFailedError(
                f"{shown} leads to what is no address of the web", "correct the address"
            )
        if parts.scheme == "http" and (first == "https" or not self._is_private(host)):
            raise ForbiddenPathError(
                f"{shown} leads to {host} without encryption, where anybody on the way may "
                "change it",
                "give its https address",
            )
        return parts

    @contextmanager
    def _answer(
        self, url: str, headers: Mapping[str, str], shown: str
    ) -> Generator[httpx.Response]:
        timeout = httpx.Timeout(self.read_seconds, connect=CONNECT_SECONDS)
        try:
            request = self._client.build_request("GET", url, headers=headers, timeout=timeout)
            response = self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise passing(shown, error) from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise DownloadFailedError(f"{shown} leads to no address", "correct it") from error
        try:
            yield response
        finally:
            response.close()

    def _is_private(self, host: str) -> bool:
        return any(_is_inside(each) for each in self.resolve(host))

    def _require_peer(self, response: httpx.Response, public: bool, shown: str) -> None:
        """Whom we talk to is who the name meant: names may mean another host a moment later."""
        stream = response.extensions.get("network_stream")
        try:
            peer = stream.get_extra_info("server_addr") if stream is not None else None
        except OSError as error:  # the connection is gone already, and whom it led to
            raise passing(shown, error) from error
        by_proxy = _asks_a_proxy(response.request.url)
        if not public or not peer or by_proxy or not _is_inside(str(peer[0])):
            return
        raise ForbiddenPathError(
            f"{shown} is answered from inside a private network", "look at the address"
        )


def require_good(response: httpx.Response, token: SecretStr | None, shown: str) -> None:
    """Refuse what is no answer to the question.

    Raises:
        AuthMissingError: it wants a token.
        AuthInvalidError: it does not take ours.
        MissingFileError: it has no such file.
        RateLimitExceededError: it asks to slow down.
        PassingError: its server has a fault.
        DownloadFailedError: anything else.
    """
    status = response.status_code
    if status in (200, 206):
        return
    raise _refusal(status, token, shown)


def _refusal(status: int, token: SecretStr | None, shown: str) -> PipelineError:
    if status in (401, 403):
        if shown.startswith("s3:"):
            return AuthInvalidError(
                f"{shown}: its service refuses the keys ({status})",
                "correct SAFELIGHT_S3_ACCESS_KEY and SAFELIGHT_S3_SECRET_KEY, or let them read it",
            )
        if token is None:
            return AuthMissingError(
                f"{shown} wants to know who asks ({status})",
                "agree to its terms on its page, then set SAFELIGHT_HF_TOKEN or "
                "SAFELIGHT_CIVITAI_TOKEN",
            )
        return AuthInvalidError(
            f"{shown} refuses the token ({status})",
            "agree to its terms on its page with the account of the token, or correct the token",
        )
    if status in (404, 410):
        return MissingFileError(f"{shown} is not there ({status})", "correct the address")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimitExceededError(f"{shown}: its server asks to slow down", "wait a while")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
        return PassingError(f"{shown}: its server answers {status}", "try again later")
    return DownloadFailedError(f"{shown}: its server answers {status}", "correct the address")


def passing(shown: str, error: Exception) -> PassingError:
    """A failure of the network."""
    return PassingError(
        f"{shown}: {type(error).__name__} {str(error)[:200]}".rstrip(),
        "run it again: it goes on where it stopped",
    )


def _is_inside(address: str) -> bool:
    """Whether it is an address that only this machine or its network has."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return not (mapped or found).is_global


def _asks_a_proxy(url: httpx.URL) -> bool:
    """Whether the environment names a proxy for an address: it stands inside, and may."""
    named = getproxies().keys() & {url.scheme, "all"}
    return bool(named) and not proxy_bypass(url.host)
