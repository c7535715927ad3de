"""Addresses that no other machine reaches."""

import ipaddress
from contextlib import suppress

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""What this machine calls itself."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    name = host.strip("[]").lower()
    with suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return name in LOOPBACK
