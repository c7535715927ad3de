"""A real Prefect server for the flows, one a session."""

from collections.abc import Iterator

import pytest
from prefect.testing.utilities import prefect_test_harness

from safelight.store.results import register_results


@pytest.fixture(scope="session")
def server() -> Iterator[None]:
    """A Prefect test server with the result block on it."""
    with prefect_test_harness(server_startup_timeout=120):
        register_results()
        yield
