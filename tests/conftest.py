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
# Each HTTP client reads all certificates that it trusts, of addresses without TLS too: those that
# Certifi has take it longer than its questions. This one signed nothing.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "data" / "authority.pem")

# a busy machine takes its time: no example fails for being slow
hypothesis.settings.register_profile("safelight", deadline=None)
hypothesis.settings.load_profile("safelight")
collect_seldom()
if "PYTEST_XDIST_WORKER" in os.environ:
    # Pydantic reads the docstrings of fields by asking all modules there are for their file: with
    # those of transformers there already, that takes longer than all else that is collected.
    from presets.base import catalog

    for preset in catalog.preset_ids():
        catalog.find_preset(preset)


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


ASKING: set[Path] = set()
"""Files with tests that ask the server of this session."""
WHOLE = {"batches", "pool", "pool_of_all", "safelight_up", "shared_pool", "worker"}
"""Fixtures that start workers and warm processes, or all of Safelight: who asks for one is slow."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow; begin with files that start servers, or the last of them runs alone."""
    for item in items:
        if not WHOLE.isdisjoint(item.fixturenames):
            item.add_marker(pytest.mark.slow)
    asking, starting = _files(items, "prefect_server"), _files(items, "database")
    items.sort(key=lambda item: (item.path not in starting, item.path in asking))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Remember which files ask the server, of the tests that were chosen."""
    ASKING.update(_files(session.items, "prefect_server"))


def _files(items: list[pytest.Item], fixture: str) -> set[Path]:
    return {item.path for item in items if fixture in item.fixturenames}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let the server rest once the files that ask it are done."""
    if item.path in ASKING:
        RESTING.wake()
    else:
        RESTING.rest()


from tests.prefect_database import database  # noqa: E402, F401
from tests.prefect_pool import (  # noqa: E402
    RESTING,
    api,  # noqa: F401
    batches,  # noqa: F401
    pool,  # noqa: F401
    pool_environment,  # noqa: F401
    prefect_server,  # noqa: F401
    project,  # noqa: F401
    shared_pool,  # noqa: F401
)
