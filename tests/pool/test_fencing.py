"""A process that lost its run tells nothing more of it."""

from collections.abc import Iterator
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import Abort
from prefect.states import State

from safelight.pool.fencing import TRUST_SECONDS, Fence, awake
from safelight.pool.ownership import Claim, released
from safelight.progress import StopReason, clear_stop, is_given_up, request_stop, stop_reason

MINE = Claim("me", 1)


@pytest.fixture(autouse=True)
def _nothing_asked() -> Iterator[None]:
    clear_stop()
    yield
    clear_stop()


class Server:
    """One run, as it stands; counts the questions."""

    def __init__(self) -> None:
        self.run: FlowRun | None = FlowRun(
            id=uuid4(), flow_id=uuid4(), state=State(type=StateType.RUNNING)
        )
        self.asked = 0

    def ask(self, run_id: UUID) -> FlowRun | None:
        self.asked += 1
        return self.run


def begun(server: Server, seconds_ago: float) -> Fence:
    fence = Fence(server.ask)
    assert server.run is not None
    assert fence.begin(server.run, MINE, awake() - seconds_ago) is None
    return fence


def test_a_fresh_word_of_the_worker_costs_no_question():
    server = Server()
    begun(server, 0).check()
    assert server.asked == 0


def test_a_stale_word_is_asked_for_once_and_holds_again():
    server = Server()
    fence = begun(server, TRUST_SECONDS + 1)
    fence.check()
    fence.check()
    assert server.asked == 1


def test_what_the_worker_heard_before_the_sleep_does_not_count():
    server = Server()
    fence = begun(server, TRUST_SECONDS + 1)
    assert server.run is not None
    fence.confirm(server.run.id, awake() - TRUST_SECONDS - 0.5)
    fence.check()
    assert server.asked == 1


@pytest.mark.parametrize("lost", ["deleted", "taken", "ended"])
def test_a_lost_run_is_given_up_for_good(lost: str):
    server = Server()
    fence = begun(server, TRUST_SECONDS + 1)
    assert server.run is not None
    if lost == "deleted":
        server.run = None
    elif lost == "taken":
        server.run.infrastructure_pid = released(2)
    else:
        server.run.state = State(type=StateType.COMPLETED)
    for _ in range(2):
        with pytest.raises(Abort):
            fence.check()
    request_stop(StopReason.RESCHEDULE)  # its worker must go as well
    assert is_given_up()
    assert stop_reason() is StopReason.GIVE_UP
    assert server.asked == 1


def test_a_run_ended_by_hand_a_moment_ago_is_not_completed():
    server = Server()
    fence = begun(server, 1)
    assert server.run is not None
    server.run.state = State(type=StateType.FAILED, name="Failed by hand")
    path = f"http://127.0.0.1/api/flow_runs/{server.run.id}/set_state"
    with pytest.raises(Abort):
        fence.guard(httpx.Request("POST", path))
    assert is_given_up()


def test_the_state_of_a_task_costs_no_question():
    server = Server()
    path = f"http://127.0.0.1/api/task_runs/{uuid4()}/set_state"
    begun(server, 1).guard(httpx.Request("POST", path))
    assert server.asked == 0


@pytest.mark.parametrize(
    ("method", "path", "kept_back"),
    [
        ("POST", "/api/flow_runs/0/set_state", True),
        ("POST", "/api/artifacts/", True),
        ("PATCH", f"/api/artifacts/{UUID(int=5)}", True),
        ("POST", "/api/deployments/0/create_flow_run", True),
        ("GET", "/api/flow_runs/0", False),
        ("POST", "/api/flow_runs/filter", False),
        ("POST", "/api/artifacts/filter", False),
    ],
)
def test_what_tells_of_a_run_is_kept_back_and_questions_are_not(
    method: str, path: str, kept_back: bool
):
    fence = begun(Server(), 0)
    request_stop(StopReason.GIVE_UP)
    request = httpx.Request(method, f"http://127.0.0.1{path}")
    if kept_back:
        with pytest.raises(Abort):
            fence.guard(request)
    else:
        fence.guard(request)


def answer(fence: Fence, shown: FlowRun, path: str, status: int = 200) -> None:
    """Have the fence see a question and what the server says to it."""
    request = httpx.Request("GET", f"http://127.0.0.1{path}")
    fence.guard(request)
    body = shown.model_dump_json(exclude={"estimated_run_time", "estimated_start_time_delta"})
    fence.hear(httpx.Response(status, content=body, request=request))


def test_an_answer_that_shows_the_run_as_ours_saves_a_question():
    server = Server()
    fence = begun(server, TRUST_SECONDS + 1)
    assert server.run is not None
    answer(fence, server.run, f"/api/flow_runs/{server.run.id}")
    fence.guard(httpx.Request("POST", f"http://127.0.0.1/api/flow_runs/{server.run.id}/set_state"))
    assert server.asked == 0


@pytest.mark.parametrize("shown", ["another run", "ended", "taken", "failed", "another question"])
def test_no_other_answer_saves_one(shown: str):
    server = Server()
    fence = begun(server, TRUST_SECONDS + 1)
    assert server.run is not None
    run = server.run.model_copy()
    path = f"/api/flow_runs/{run.id}"
    if shown == "another run":
        run.id = uuid4()
    elif shown == "ended":
        run.state = State(type=StateType.COMPLETED)
    elif shown == "taken":
        run.infrastructure_pid = released(2)
    elif shown == "another question":
        path += "/graph"
    answer(fence, run, path, 503 if shown == "failed" else 200)
    fence.check()
    assert server.asked == 1
