"""How addresses are written, what holds a port, and where the configured address comes from."""

import os
import socket
from pathlib import Path

import httpx
import pytest

from safelight.cli.addresses import (
    api_url,
    holder,
    listens,
    refuse_taken,
    source_of_api_url,
    spare_loopback,
    web_url,
)
from safelight.errors import InvalidFieldValueError


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:7"),
        ("0.0.0.0", "http://127.0.0.1:7"),
        ("::", "http://[::1]:7"),
        ("fd00::5", "http://[fd00::5]:7"),
        ("[::1]", "http://[::1]:7"),
        ("render-3.example", "http://render-3.example:7"),
    ],
)
def test_a_server_is_asked_at_an_address_that_reaches_it(host: str, expected: str):
    assert web_url(host, 7) == expected
    assert api_url(host, 7) == f"{expected}/api"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0"])
def test_a_port_that_is_taken_is_refused_with_what_holds_it(host: str):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as taken:
        taken.bind((host, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidFieldValueError, match=f"port {port} .* process {os.getpid()}"):
            refuse_taken(host, port)
        assert listens(os.getpid(), port)
        assert str(os.getpid()) in holder(port)
    refuse_taken(host, port)
    assert not listens(os.getpid(), port)


def test_a_host_that_is_elsewhere_is_refused():
    with pytest.raises(InvalidFieldValueError, match=r"203\.0\.113\.7"):
        refuse_taken("203.0.113.7", 4200)


def test_this_machine_is_never_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch):
    """The proxy named does not exist, so whatever is sent to it fails."""
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "files.example")
    monkeypatch.delenv("NO_PROXY", raising=False)
    environment = dict(os.environ)
    spare_loopback(environment)
    for name in ("no_proxy", "NO_PROXY"):
        assert environment[name] == "files.example,127.0.0.1,localhost,::1"
        monkeypatch.setenv(name, environment[name])
    again = dict(environment)
    spare_loopback(again)
    assert again == environment
    for url in ("http://127.0.0.1:9/", "http://[::1]:9/", "http://localhost:9/"):
        with httpx.Client() as client:
            # refused by what listens there, not answered by a proxy; no private name is public
            transport = client._transport_for_url(httpx.URL(url))
            assert transport is client._transport
            assert (
                client._transport_for_url(httpx.URL("http://elsewhere.example/")) is not transport
            )


@pytest.mark.parametrize("where", ["env", "dotenv", "prefect", "pyproject", "profile"])
def test_the_source_of_an_address_is_named(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    url = "http://10.0.0.9:4200/api"
    if where == "env":
        monkeypatch.setenv("PREFECT_API_URL", url)
        expected = "the environment variable PREFECT_API_URL"
    elif where == "dotenv":
        (tmp_path / ".env").write_text(f"PREFECT_API_URL={url}\n")
        expected = f"PREFECT_API_URL in {tmp_path / '.env'}"
    elif where == "prefect":
        (tmp_path / "prefect.toml").write_text(f'[api]\nurl = "{url}"\n')
        expected = f"api.url in {tmp_path / 'prefect.toml'}"
    elif where == "pyproject":
        (tmp_path / "pyproject.toml").write_text(f'[tool.prefect.api]\nurl = "{url}"\n')
        expected = f"api.url in {tmp_path / 'pyproject.toml'}"
    else:
        (tmp_path / "pyproject.toml").write_text("[tool.ruff]\n")
        expected = "the profile "
    assert source_of_api_url().startswith(expected)
