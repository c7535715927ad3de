"""Settings that lead each provider to a small server of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.remote.connected import connected, forget_standing
from tests.engines.remote.fal_server import Fal
from tests.engines.remote.kling_server import Kling
from tests.engines.remote.providing import clip, provided
from tests.engines.remote.runware_server import Runware
from tests.engines.remote.sync_server import Sync


@pytest.fixture(autouse=True)
def fresh_standing() -> Iterator[None]:
    forget_standing()
    yield
    forget_standing()


@pytest.fixture
def fal(volume: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fal]:
    with provided(Fal()) as server:
        connected(monkeypatch, server)
        yield server


@pytest.fixture
def runware(volume: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runware]:
    with provided(Runware()) as server:
        connected(monkeypatch, server)
        yield server


@pytest.fixture
def kling(volume: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Kling]:
    with provided(Kling()) as server:
        server.result = (clip(tmp_path), "video/mp4")
        connected(monkeypatch, server)
        yield server


@pytest.fixture
def sync(volume: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Sync]:
    with provided(Sync()) as server:
        server.result = (clip(tmp_path), "video/mp4")
        connected(monkeypatch, server)
        yield server
