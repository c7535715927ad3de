"""A real Prefect server for the flows, one a session."""

from collections.abc import Iterator

import pytest
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from safelight.store.results import register_results


@pytest.fixture(scope="session")
def server() -> Iterator[None]:
    """A Prefect test server with the result block on it."""
    no_beats = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})  # up to 1 s a run
    with prefect_test_harness(server_startup_timeout=120), no_beats:
        register_results()
        yield
