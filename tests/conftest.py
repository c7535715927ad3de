"""Fixtures every test may use."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from safelight.garbage import collect_seldom

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# a busy machine takes its time: no example fails for being slow
hypothesis.settings.register_profile("safelight", deadline=None)
hypothesis.settings.load_profile("safelight")
collect_seldom()


def _forget() -> None:
    from safelight.settings import settings
    from safelight.store.store import current_store

    settings.cache_clear()
    current_store.cache_clear()


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh volume root that the settings and the store of this process use."""
    root = tmp_path / "volume"
    monkeypatch.setenv("VOLUME_ROOT", str(root))
    _forget()
    yield root
    _forget()


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A real photograph with a face: (512, 512, 3) uint8 sRGB."""
    from skimage import data

    return data.astronaut()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, or the last of them runs alone in the end."""

    def long(item: pytest.Item) -> bool:
        return item.get_closest_marker("slow") is not None or "pool" in item.fixturenames

    first = {item.path for item in items if long(item)}
    items.sort(key=lambda item: item.path not in first)


from tests.prefect_database import database  # noqa: E402, F401
from tests.prefect_pool import (  # noqa: E402
    api,  # noqa: F401
    batches,  # noqa: F401
    pool,  # noqa: F401
    pool_environment,  # noqa: F401
    prefect_server,  # noqa: F401
    project,  # noqa: F401
    shared_pool,  # noqa: F401
)
