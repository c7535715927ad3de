"""The run's page is for people: without a server it is left out, and the run goes on."""

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.publishing import ProgressBoard
from safelight.cli.server import free_port


@pytest.mark.filterwarnings("ignore:Artifact creation outside")
def test_progress_is_left_out_while_the_server_is_away(caplog: pytest.LogCaptureFixture):
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        ProgressBoard().report("grade", 1, 2)
    assert "left out on the run's page" in caplog.text
