"""How far a run is, for people: without a server it is left out, and the run goes on."""

import socket
from uuid import UUID

import pytest
from prefect import flow
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.running import progress as showing
from flows.running.progress import ProgressBoard
from safelight.cli.server import free_port
from safelight.client.asking import patient_client
from safelight.client.runs import progress_of
from tests.prefect_pool import artifacts_of


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is shown, the first one too."""
    monkeypatch.setattr(showing, "SECONDS_BETWEEN_UPDATES", 0.0)


def report_to_nobody() -> None:
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        board = ProgressBoard()
        board.report("grade", 1, 2)
        board.finish()


@pytest.mark.usefixtures("at_once")
@pytest.mark.filterwarnings("ignore:Artifact creation outside")
def test_progress_is_left_out_while_the_server_is_away(caplog: pytest.LogCaptureFixture):
    report_to_nobody()
    assert "left out on the run's page" in caplog.text


def test_a_short_run_shows_no_progress(caplog: pytest.LogCaptureFixture):
    report_to_nobody()
    assert "left out on the run's page" not in caplog.text


@pytest.mark.usefixtures("at_once")
@pytest.mark.filterwarnings("ignore:Artifact creation outside")
def test_no_step_waits_for_a_server_that_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        with temporary_settings({PREFECT_API_URL: address}):
            board = ProgressBoard()
            board.report("grade", 1, 2)  # would hang here
            connection, _ = silent.accept()
            with connection:
                assert connection.recv(4096)  # it asks,
                board.report("grade", 2, 2)
                connection.setblocking(False)
                with pytest.raises(BlockingIOError):  # and waits still
                    list(iter(lambda: connection.recv(4096), b""))


@pytest.mark.usefixtures("server", "volume")
def test_a_later_try_that_is_over_at_once_shows_the_run_as_done():
    @flow
    def tried_again() -> str:
        first = ProgressBoard()
        first._show(50.0, "grade: 1 of 2")
        later = ProgressBoard(begun_before=True)
        later.finish()
        return str(FlowRunContext.get().flow_run.id)

    run = tried_again()
    with patient_client() as client:
        assert progress_of(client, UUID(run)) == (100.0, "finished")
    assert [artifact.key for artifact in artifacts_of(run)] == ["progress"]
