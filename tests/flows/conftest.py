"""A real Prefect server for flows that run in this process."""

from collections.abc import Iterator

import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    temporary_settings,
)

from safelight.store.results import register_results
from tests.prefect_pool import let_go_of_server


@pytest.fixture(scope="module")
def server(prefect_server: str) -> Iterator[None]:
    """The settings that flows use, and the result block on the server."""
    no_beats = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}  # up to 1 s a run
    with temporary_settings({PREFECT_API_URL: prefect_server, **no_beats}):
        register_results()
        yield
        let_go_of_server()
