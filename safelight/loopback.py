"""Addresses that no other machine reaches."""

import ipaddress
import socket
from contextlib import suppress

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""What this machine calls itself."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    name = host.strip("[]").lower()
    with suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return name in LOOPBACK


def free_port() -> int:
    """A TCP port of the loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
