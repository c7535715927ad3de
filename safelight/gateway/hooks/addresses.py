"""Where web hooks may go: to the wide world, and inside only where the operator allows it."""

import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlsplit

from safelight.errors import EngineOfflineError, ForbiddenPathError, InvalidFieldValueError
from safelight.settings import settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Iterable[str]]
LONGEST = 2000
"""Characters of an address."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class ForbiddenAddressError(ForbiddenPathError):
    """A web hook leads to an address that only this machine or its network has."""


class NoAddressError(EngineOfflineError):
    """The host of a web hook has no address at the moment."""

    status: ClassVar[int] = 400


@dataclass(frozen=True)
class Place:
    """Where a web hook goes."""

    url: str
    """As it was given."""
    scheme: str
    host: str
    port: int

    @property
    def name(self) -> str:
        """Host and port, as the header Host has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"http": 80, "https": 443}[self.scheme] == self.port
        return host if usual else f"{host}:{self.port}"

    def at(self, address: str) -> str:
        """The same at one address of the host, so that no name is looked up again."""
        parts = urlsplit(self.url)
        host = f"[{address}]" if ":" in address else address
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return f"{self.scheme}://{host}:{self.port}{path}"


def place_of(url: str) -> Place:
    """An address of a web hook, taken apart.

    Raises:
        InvalidFieldValueError: it is none.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
    named = parts.username is not None or parts.password is not None or bool(parts.fragment)
    if parts.scheme not in ("http", "https") or not host or named or not plain:
        raise InvalidFieldValueError(
            f"url is {url[:80]!a}, expected http:// or https:// and a host, without a user, a "
            "password or a fragment",
            "correct url",
        )
    usual = 443 if parts.scheme == "https" else 80
    return Place(url, parts.scheme, host.rstrip("."), usual if port is None else port)


def addresses(place: Place, resolve: Resolve | None = None) -> list[str]:
    """All addresses of the host, every one of which may be called.

    Raises:
        ForbiddenAddressError: one of them is inside, and not allowed.
        NoAddressError: it has none at the moment.
    """
    found = list(dict.fromkeys((resolve or _resolved)(place.host, place.port)))
    if not found:
        raise NoAddressError(f"{place.host} has no address", "look at the name of the host")
    for each in found:
        if not may_call(place.host, each):
            raise ForbiddenAddressError(
                f"{place.host} is {each}, which only this machine or its network has",
                "take an address of the internet, or have the operator name it in "
                "SAFELIGHT_WEBHOOK_INSIDE",
            )
    return found


def may_call(host: str, address: str) -> bool:
    """Whether an address of a host may be called."""
    found = _number(address)
    if found is None:
        return False
    return _is_outside(found) or _is_allowed(host, found)


def _is_outside(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        teredo = address.teredo
        if teredo is not None:
            inner = teredo[1]
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_outside(inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


def _is_allowed(host: str, address: Address) -> bool:
    """Whether the operator named the host, its address, or its network."""
    for entry in filter(None, (each.strip() for each in settings().webhook_inside.split(","))):
        if entry.lower() == host.lower():
            return True
        try:
            if address in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False


def _number(address: str) -> Address | None:
    try:
        return ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None


def _resolved(host: str, port: int) -> Iterable[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NoAddressError(
            f"{host} has no address: {error}", "look at the name of the host"
        ) from error
    return [str(each[4][0]) for each in found]
