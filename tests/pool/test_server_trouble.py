"""A run is not to blame for a server that is away, whatever Prefect makes of it."""

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from safelight.cli.server import free_port
from safelight.pool.child import is_server_trouble


def test_a_server_that_is_away_is_told_from_a_run_that_cannot_be_called():
    with (
        temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}),
        get_client(sync_client=True) as client,
        pytest.raises(RuntimeError, match="Failed to reach API") as caught,
    ):
        client.raise_for_api_version_mismatch_once()  # as each process does before its first run
    assert is_server_trouble(caught.value)
    assert not is_server_trouble(RuntimeError("no such flow"))
