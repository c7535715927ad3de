"""Addresses of Prefect servers: how they are written, where they come from, who listens there."""

import errno
import ipaddress
import os
import socket
import tomllib
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

import psutil
from dotenv import dotenv_values
from prefect.context import get_settings_context
from prefect.settings import get_current_settings

from safelight.errors import InvalidFieldValueError
from safelight.loopback import LOOPBACK

NO_PROXY = ("no_proxy", "NO_PROXY")
"""Programs read one or the other."""
API_URL = "PREFECT_API_URL"


def spare_loopback(environment: MutableMapping[str, str]) -> None:
    """Have this machine's own addresses asked directly, whatever proxy the environment names.

    What it exempts already stays exempt.
    """
    listed = ",".join(environment.get(name, "") for name in NO_PROXY).split(",")
    spared = dict.fromkeys([*filter(None, map(str.strip, listed)), *LOOPBACK])
    for name in NO_PROXY:
        environment[name] = ",".join(spared)


def api_url(host: str, port: int) -> str:
    """Address of the API of a server that listens on a host, as this machine reaches it.

    Args:
        host: a name or an address; one that stands for all addresses is reached by loopback.
        port: its TCP port.
    """
    return f"{web_url(host, port)}/api"


def web_url(host: str, port: int) -> str:
    """Address of the UI of such a server."""
    name = host.strip("[]")
    with suppress(ValueError):  # a name, no address
        address = ipaddress.ip_address(name)
        if address.is_unspecified:
            name = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def refuse_taken(host: str, port: int) -> None:
    """See to it that a server can listen there.

    Raises:
        InvalidFieldValueError: another program has the port, or this machine has no such address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
    except socket.gaierror as error:
        raise InvalidFieldValueError(
            f"host is {host}, which is no address of this machine: {error.strerror}",
            "set --host to an address of this machine, for instance 127.0.0.1",
        ) from error
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise InvalidFieldValueError(
                    f"port {port} on {host} is taken by {holder(port)}",
                    "stop that, or choose another port with --port",
                ) from error
            raise InvalidFieldValueError(
                f"nothing can listen on port {port} of {host}: {error.strerror}",
                "correct --host and --port",
            ) from error


def holder(port: int) -> str:
    """What listens on a port of this machine, as far as we may know."""
    try:
        for found in psutil.net_connections("tcp"):
            if found.pid and _is_listening(found.status, found.laddr, port):
                program = psutil.Process(found.pid)
                return f"process {found.pid} ({_described(program)})"
    except psutil.Error:  # of somebody else, or gone meanwhile
        pass
    return "another program"


def _described(program: psutil.Process) -> str:
    with suppress(psutil.Error):
        words = program.cmdline()
        if words:
            return " ".join([Path(words[0]).name, *words[1:]])[:100]
    return program.name()


def listens(pid: int, port: int) -> bool:
    """Whether this process, one of ours, listens on a port."""
    try:
        found = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return False
    return any(_is_listening(one.status, one.laddr, port) for one in found)


def _is_listening(status: str, address: Sequence[object], port: int) -> bool:
    return status == psutil.CONN_LISTEN and address[1] == port


def configured_api_url() -> str | None:
    """Address of the Prefect server that the environment or the profile names, if any."""
    return get_current_settings().api.url


def source_of_api_url() -> str:
    """What names the configured server, in the order in which Prefect looks."""
    if API_URL in os.environ:
        return f"the environment variable {API_URL}"
    if dotenv_values(".env").get(API_URL):
        return f"{API_URL} in {Path('.env').resolve()}"
    for file, tables in ((Path("prefect.toml"), ()), (Path("pyproject.toml"), ("tool", "prefect"))):
        if _api_url_in(file, tables):
            return f"api.url in {file.resolve()}"
    context = get_settings_context()
    name = context.profile.name
    return f"the profile {name} in {context.settings.profiles_path}"


def _api_url_in(file: Path, tables: tuple[str, ...]) -> bool:
    with suppress(OSError, ValueError):
        found: object = tomllib.loads(file.read_text())
        for table in (*tables, "api", "url"):
            found = cast("dict[str, object]", found).get(table) if isinstance(found, dict) else None
        return bool(found)
    return False
