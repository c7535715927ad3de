"""Passwords of embedded servers: made anew at each start, kept on the volume for its owner alone.

Prefect asks for one as basic authentication (`server.api.auth_string`). Our own processes get it by
environment; other commands on the same volume read it from a file of mode 0600 that is named after
the server's address and goes when the server does. An operator's own password is never written.
"""

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_SERVER_API_AUTH_STRING,
    get_current_settings,
    temporary_settings,
)

from safelight.cli.addresses import configured_api_url
from safelight.errors import InvalidFieldValueError
from safelight.loopback import is_loopback
from safelight.settings import settings

FOR_SERVERS = PREFECT_SERVER_API_AUTH_STRING.name
FOR_CLIENTS = PREFECT_API_AUTH_STRING.name
USER = "safelight"
"""Prefect does not look at it; curl and others want a name before the password."""
BYTES = 32
"""Of randomness."""


def operators_password() -> str | None:
    """What the operator has set for servers, if anything."""
    found = get_current_settings().server.api.auth_string
    return (found.get_secret_value() if found else "") or None


def choose_password(host: str) -> str | None:
    """The password of a server that starts now; None when the operator wants none.

    Args:
        host: address it will listen on.

    Raises:
        InvalidFieldValueError: others could reach it, and it would ask nobody for a password.
    """
    chosen = operators_password()
    if chosen is None and settings().server_auth == "token":
        chosen = f"{USER}:{secrets.token_urlsafe(BYTES)}"
    if chosen is None and not is_loopback(host):
        raise InvalidFieldValueError(
            f"the server is to listen on {host} and to ask for no password: whoever reaches it "
            "could run code on this machine",
            f"unset SAFELIGHT_SERVER_AUTH, set {FOR_SERVERS} to a password, or listen on 127.0.0.1",
        )
    return chosen


@contextmanager
def in_use(password: str | None) -> Generator[None]:
    """Have this process, and what it starts, send a password to the Prefect API."""
    if password is None:
        yield
        return
    before = os.environ.get(FOR_CLIENTS)
    os.environ[FOR_CLIENTS] = password
    try:
        with temporary_settings({PREFECT_API_AUTH_STRING: password}):
            yield
    finally:
        if before is None:
            os.environ.pop(FOR_CLIENTS, None)
        else:
            os.environ[FOR_CLIENTS] = before


@contextmanager
def kept(home: Path, url: str, password: str | None) -> Generator[None]:
    """Leave the password of a server in its file while the block runs, unless it is the operator's.

    Args:
        home: folder of the servers of this volume.
        url: address of its API.
        password: its password.
    """
    if password is None or password == operators_password():
        yield
        return
    file = _file(home, url)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    half = file.with_name(f"{file.name}.{os.getpid()}")
    half.unlink(missing_ok=True)
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as output:
        output.write(password)
    half.replace(file)
    try:
        yield
    finally:
        if _read(file) == password:
            file.unlink(missing_ok=True)


def password_of(home: Path, url: str) -> str | None:
    """The password that a server of this volume was started with, if it is one and we may know."""
    return _read(_file(home, url))


@contextmanager
def joined(home: Path) -> Generator[None]:
    """Ask the configured server with the password from its file, unless one is set already.

    Args:
        home: folder of the servers of this volume.
    """
    current = get_current_settings().api
    known = current.auth_string is not None and current.auth_string.get_secret_value()
    url = configured_api_url()
    with in_use(None if known or current.key or url is None else password_of(home, url)):
        yield


def _file(home: Path, url: str) -> Path:
    """Named after an address, so that no other server is ever sent the password."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    port = parts.port or {"https": 443}.get(parts.scheme, 80)
    return home / "passwords" / f"{'127.0.0.1' if is_loopback(host) else host}:{port}"


def _read(file: Path) -> str | None:
    try:
        return file.read_text() or None
    except OSError:  # another user's, or there is none
        return None
