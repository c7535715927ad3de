"""The embedded server lets an end that somebody gave a run stand, and people begin it again."""

import subprocess
import sys
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import SetStateStatus, StateAbortDetails
from prefect.exceptions import Abort
from prefect.flows import flow
from prefect.states import (
    AwaitingRetry,
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Pending,
    Running,
    Submitting,
)
from prefect.utilities.engine import propose_state_sync

from tests.prefect_pool import credentials

ENDS = (Completed(), Failed(), Cancelled())


def ended(api: SyncPrefectClient, deployment: UUID, end: State) -> FlowRun:
    """A run that somebody gave this end, in words of their own."""
    run = api.create_flow_run_from_deployment(deployment)
    by_hand = State(type=end.type, name=end.name, message="by hand")
    assert api.set_flow_run_state(run.id, by_hand, force=True).status is SetStateStatus.ACCEPT
    return run


@pytest.fixture
def deployment(api: SyncPrefectClient) -> UUID:
    name = f"ended-{uuid4().hex[:8]}"
    api.create_work_pool(WorkPoolCreate(name=name, type="process"))
    return api.create_deployment(
        api.create_flow_from_name(name), name=name, entrypoint="none.none", work_pool_name=name
    )


@pytest.mark.parametrize(
    ("end", "late"),
    [
        *((end, late) for end in ENDS for late in (Pending(), Running(), *ENDS)),
        (Crashed(), Pending()),
    ],
    ids=lambda state: state.type.value,
)
def test_what_waited_in_the_server_does_not_take_the_place_of_an_end(
    api: SyncPrefectClient, deployment: UUID, end: State, late: State
):
    run = ended(api, deployment, end)
    answer = api.set_flow_run_state(run.id, State(type=late.type, name=late.name))
    assert answer.status is SetStateStatus.ABORT
    assert isinstance(answer.details, StateAbortDetails)
    assert answer.details.reason
    state = api.read_flow_run(run.id).state
    assert state is not None
    assert (state.type, state.message) == (end.type, "by hand")


def test_the_reason_says_what_to_do(api: SyncPrefectClient, deployment: UUID):
    run = ended(api, deployment, Failed())
    with pytest.raises(Abort, match="ended as Failed") as refused:
        propose_state_sync(api, Completed(), flow_run_id=run.id)
    assert "schedule it again" in str(refused.value)


def test_many_at_once_are_kept_too(api: SyncPrefectClient, deployment: UUID):
    run = ended(api, deployment, Failed())
    with httpx.Client(base_url=str(api.api_url), timeout=60, headers=credentials()) as plain:
        asked = {"flow_runs": {"id": {"any_": [str(run.id)]}}, "state": {"type": "COMPLETED"}}
        (answer,) = plain.post("flow_runs/bulk_set_state", json=asked).json()["results"]
    assert answer["status"] == "ABORT"
    assert api.read_flow_run(run.id).state_type is StateType.FAILED


@pytest.mark.parametrize("end", [*ENDS, Crashed()], ids=lambda state: state.type.value)
def test_a_run_that_is_retried_begins_again(api: SyncPrefectClient, deployment: UUID, end: State):
    run = ended(api, deployment, end)
    # as the Prefect UI does
    for state in (AwaitingRetry(), Pending(), Submitting(), Running(), Completed()):
        assert api.set_flow_run_state(run.id, state).status is SetStateStatus.ACCEPT


@pytest.mark.parametrize("end", ENDS, ids=lambda state: state.type.value)
def test_what_is_forced_is_done(api: SyncPrefectClient, deployment: UUID, end: State):
    run = ended(api, deployment, end)
    for state in (Pending(), Failed(), Running(), Completed(), Cancelled(), Crashed()):
        answer = api.set_flow_run_state(run.id, state, force=True)
        assert answer.status is SetStateStatus.ACCEPT


def test_a_crashed_run_that_goes_on_completes(api: SyncPrefectClient, deployment: UUID):
    for following in (Submitting(), Running(), Completed()):
        run = ended(api, deployment, Crashed())
        assert api.set_flow_run_state(run.id, following).status is SetStateStatus.ACCEPT


def test_a_change_that_is_repeated_is_answered_as_before(api: SyncPrefectClient, deployment: UUID):
    run = api.create_flow_run_from_deployment(deployment)
    propose_state_sync(api, Pending(), flow_run_id=run.id)
    propose_state_sync(api, Running(), flow_run_id=run.id)
    state = {"type": "COMPLETED", "state_details": {"transition_id": str(uuid4())}}
    with httpx.Client(base_url=str(api.api_url), timeout=60, headers=credentials()) as plain:
        url = f"flow_runs/{run.id}/set_state"
        answers = [plain.post(url, json={"state": state}).json()["status"] for _ in range(2)]
    assert answers == ["ACCEPT", "REJECT"]


@pytest.mark.slow
def test_the_retry_command_schedules_it(
    api: SyncPrefectClient, deployment: UUID, prefect_server: str
):
    run = ended(api, deployment, Failed())
    subprocess.run(
        [sys.executable, "-m", "prefect", "flow-run", "retry", str(run.id)],
        check=True,
        capture_output=True,
    )
    assert api.read_flow_run(run.id).state_type is StateType.SCHEDULED
    assert api.set_flow_run_state(run.id, Pending()).status is SetStateStatus.ACCEPT


def test_flows_that_begin_again_in_their_process_do_so(api: SyncPrefectClient):
    tries: list[str] = []

    @flow(retries=1)
    def inner() -> int:
        tries.append("inner")
        if len(tries) < 4:
            raise ValueError("not yet")
        return 1

    @flow(retries=2)
    def outer() -> int:
        tries.append("outer")
        return inner()

    state = outer(return_state=True)
    assert state.is_completed()
    assert tries == ["outer", "inner", "inner", "outer", "inner"]


def test_a_run_without_a_deployment_is_begun_again_by_its_program(api: SyncPrefectClient):
    @flow
    def program() -> None:
        """Only its name is needed."""

    run = api.create_flow_run(program, state=Failed())
    for state in (Running(), Failed(), Running(), Completed()):
        assert api.set_flow_run_state(run.id, state).status is SetStateStatus.ACCEPT
