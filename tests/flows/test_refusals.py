"""What people read of a run that failed: its state, its tags, its log, its error in Python."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun, State

from flows.running.recorded import recorded_flow
from safelight.errors import (
    ForbiddenPathError,
    InvalidFieldValueError,
    PipelineError,
    UnknownError,
)
from safelight.progress import clear_stop
from safelight.store.artifact import ArtifactRef
from tests.flows.conftest import PHOTO
from tests.flows.running.test_recorded import two_stages

pytestmark = pytest.mark.usefixtures("server", "volume")


@recorded_flow
def capricious(prompt: str = "a blue bird", seed: int = 3, fault: str = "none") -> ArtifactRef:
    """Ends as it is told to."""
    if fault == "known":
        raise ForbiddenPathError(f"no {prompt}\nCRITICAL forged \x1b[2J", "ask for another")
    if fault == "unknown":
        raise KeyError("MPO")
    if fault == "exit":
        raise SystemExit(3)
    raise InvalidFieldValueError("nothing was asked for", "set fault")


def ended(**parameters: object) -> State:
    state = capricious(**parameters, return_state=True)
    assert state.is_failed()
    return state


def run_of(state: State) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(state.state_details.flow_run_id)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[logging.LogRecord]]:
    """Records of runs and of Prefect's engine, as a handler of theirs gets them."""
    records: list[logging.LogRecord] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            self.format(record)
            records.append(record)

    handler = Keeping()
    names = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")
    for name in names:
        logging.getLogger(name).addHandler(handler)
    yield records
    for name in names:
        logging.getLogger(name).removeHandler(handler)


def errors(records: list[logging.LogRecord]) -> list[logging.LogRecord]:
    return [record for record in records if record.levelno >= logging.ERROR]


CASES = [
    ({"fault": "known"}, "PERMISSION_DENIED"),
    ({"fault": "unknown"}, "UNKNOWN_ERROR"),
    ({"fault": "exit"}, "UNKNOWN_ERROR"),
    ({"seed": "many"}, "INVALID_FIELD_VALUE"),
]


@pytest.mark.parametrize(("parameters", "code"), CASES)
def test_the_message_begins_with_the_code_and_the_log_says_it_once(
    parameters: dict[str, object], code: str, said: list[logging.LogRecord]
):
    state = ended(**parameters)
    message = state.message or ""
    assert message.startswith(f"[{code}] ")
    assert "Fix: " in message
    assert message.isprintable()
    (record,) = errors(said)
    assert record.getMessage() == message
    assert record.exc_info is None
    assert sum(code in entry.getMessage() for entry in said) == 1
    run = run_of(state)
    assert f"error:{code}" in run.tags
    assert run.state is not None
    assert run.state.message == message


def test_all_that_failed_in_one_way_are_one_filter_away():
    run = run_of(ended(fault="unknown"))
    wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=["error:UNKNOWN_ERROR"]))
    with get_client(sync_client=True) as client:
        assert run.id in {found.id for found in client.read_flow_runs(flow_run_filter=wanted)}


def test_a_program_gets_the_error_itself_from_a_state_that_the_server_gave():
    state = run_of(ended(fault="known", prompt="fox. Fix: none")).state
    assert state is not None
    with pytest.raises(ForbiddenPathError) as caught:
        state.result()
    assert caught.value.problem.startswith("no fox. Fix: none\\nCRITICAL")
    assert caught.value.remedy == "ask for another"
    with pytest.raises(PipelineError, match=r"^\[INVALID_FIELD_VALUE\] capricious: field seed"):
        capricious(seed="many")


def test_the_traceback_of_an_unknown_error_is_in_a_file_that_the_message_names(volume: Path):
    with pytest.raises(UnknownError, match="KeyError: 'MPO'") as caught:
        capricious(fault="unknown")
    (report,) = (volume / "cache" / "reports").iterdir()
    assert str(report) in caught.value.remedy
    assert report.stem in caught.value.problem
    assert 'raise KeyError("MPO")' in report.read_text()
    assert report.stat().st_mode & 0o077 == 0


@pytest.mark.usefixtures("uploaded")
def test_a_failed_stage_adds_no_record_of_its_own(said: list[logging.LogRecord], tmp_path: Path):
    state = two_stages(PHOTO, str(tmp_path / "m"), "input", return_state=True)
    assert state.is_failed()
    assert "INVALID_FIELD_VALUE" in str(state.message)
    assert [record.getMessage() for record in errors(said)] == [state.message]


@pytest.mark.usefixtures("uploaded")
def test_a_cancelled_run_has_no_record_of_an_error(said: list[logging.LogRecord], tmp_path: Path):
    try:
        state = two_stages(PHOTO, str(tmp_path / "m"), "stop", return_state=True)
    finally:
        clear_stop()
    assert state.is_cancelled()
    assert "Finished in state Cancelled" in {record.getMessage() for record in said}
    assert max(record.levelno for record in said) == logging.INFO


def test_runs_are_named_by_what_they_make_unless_somebody_named_them():
    assert run_of(ended(prompt="a *very* long tale of " + "birds " * 20)).name == (
        "a *very* long tale of birds birds birds… · 3"
    )
    assert run_of(ended(seed="many")).name == "a blue bird · many"
    named = capricious.with_options(flow_run_name="tuesday")(return_state=True)
    assert run_of(named).name == "tuesday"
