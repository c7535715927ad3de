"""A real Prefect server for flows that run in this process."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    temporary_settings,
)

from safelight.store.results import register_results
from tests.prefect_pool import let_go_of_server

SMALL_PHOTO = Path(__file__).resolve().parents[1] / "data" / "face.webp"
PHOTO = "uploads/face.webp"
"""Of the fixture `uploaded`."""


@pytest.fixture
def uploaded(volume: Path) -> None:
    """The photograph, where runs may read."""
    (volume / "uploads").mkdir(parents=True)
    shutil.copy(SMALL_PHOTO, volume / PHOTO)


@pytest.fixture(scope="module")
def server(prefect_server: str) -> Iterator[None]:
    """The settings that flows use, and the result block on the server."""
    no_beats = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}  # up to 1 s a run
    with temporary_settings({PREFECT_API_URL: prefect_server, **no_beats}):
        register_results()
        yield
        let_go_of_server()
