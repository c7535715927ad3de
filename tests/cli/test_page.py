"""The page beside `safelight up`: it comes back when its gateway ends, and ends with it."""

import time

import httpx
import psutil
import pytest

from safelight.cli.page import page_beside
from safelight.loopback import free_port

pytestmark = [pytest.mark.soak, pytest.mark.usefixtures("volume")]
PATIENCE = 120.0


def answers(port: int) -> bool:
    try:
        with httpx.Client(trust_env=False) as client:
            return client.get(f"http://127.0.0.1:{port}/page/static/look.css").status_code == 200
    except httpx.TransportError:
        return False


def wait(port: int) -> None:
    end = time.monotonic() + PATIENCE
    while not answers(port):
        assert time.monotonic() < end
        time.sleep(0.2)


def test_a_gateway_that_is_killed_comes_back_by_itself():
    port = free_port()
    before = {child.pid for child in psutil.Process().children()}
    with page_beside("http://127.0.0.1:9/api", port):
        wait(port)
        (serving,) = [c for c in psutil.Process().children() if c.pid not in before]
        serving.kill()
        wait(port)
        assert serving.pid not in {child.pid for child in psutil.Process().children()}
    assert not answers(port)


def test_a_port_that_is_taken_costs_another_one(capsys: pytest.CaptureFixture[str]):
    port = free_port()
    with page_beside("http://127.0.0.1:9/api", port):
        wait(port)
        with page_beside("http://127.0.0.1:9/api", port):
            said = capsys.readouterr().out
    assert f"port {port} on 127.0.0.1 is taken" in " ".join(said.split())


def test_port_0_serves_none():
    before = len(psutil.Process().children())
    with page_beside("http://127.0.0.1:9/api", 0):
        assert len(psutil.Process().children()) == before
