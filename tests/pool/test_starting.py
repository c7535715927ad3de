"""A run that was ended or deleted since it was seen to wait is not started, nor told of."""

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from uuid import UUID, uuid4

import anyio
import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import Abort, ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Failed, Pending, Running

from safelight.pool.fencing import DECIDE_SECONDS, awake
from safelight.pool.starting import Starting
from safelight.store.results import register_results
from tests.prefect_pool import Pool, Project, eventually
from tests.unwell import LOST, Fault, Unwell, unwell


def proposing(run_id: UUID, state: State) -> httpx.Request:
    content = {"state": {"type": state.type.value}}
    return httpx.Request("POST", f"http://x/api/flow_runs/{run_id}/set_state", json=content)


def answering(state: State | None, asked: list[UUID]) -> Callable[[UUID], Awaitable[FlowRun]]:
    async def ask(run_id: UUID) -> FlowRun:
        asked.append(run_id)
        if state is None:
            raise ObjectNotFound(http_exc=RuntimeError("404"))
        return FlowRun(id=run_id, flow_id=uuid4(), state=state)

    return ask


@pytest.mark.parametrize("found", [Failed(), Completed(), None])
def test_what_was_seen_a_while_ago_is_asked_for(found: State | None):
    run_id, asked = uuid4(), list[UUID]()
    starting = Starting(answering(found, asked))
    starting.saw([run_id], awake() - DECIDE_SECONDS - 1)
    with pytest.raises(Abort):
        anyio.run(starting.guard, proposing(run_id, Pending()))
    assert asked == [run_id]


def test_nothing_else_costs_a_question():
    run_id, asked = uuid4(), list[UUID]()
    starting = Starting(answering(None, asked))
    starting.saw([run_id], awake() + 60)  # just now
    anyio.run(starting.guard, proposing(run_id, Pending()))
    starting.saw([run_id], awake() - 60)
    anyio.run(starting.guard, proposing(run_id, Running()))
    anyio.run(starting.guard, proposing(uuid4(), Pending()))
    anyio.run(starting.guard, httpx.Request("GET", f"http://x/api/flow_runs/{run_id}"))
    starting.forget(run_id)
    anyio.run(starting.guard, proposing(run_id, Pending()))
    assert asked == []


@pytest.fixture(scope="module")
def way(prefect_server: str) -> Iterator[Unwell]:
    """The way of the worker to the server; no event comes through."""
    with unwell(prefect_server) as made:
        yield made


@pytest.fixture(scope="module")
def pool_of_all(
    prefect_server: str, way: Unwell, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pool]:
    """A work pool with a worker at the end of that way, which asks each second."""
    project = Project(tmp_path_factory.mktemp("starting"))
    with (
        temporary_settings({PREFECT_API_URL: prefect_server}),
        get_client(sync_client=True) as client,
    ):
        register_results()
        made = Pool(client, project)
        made.start_worker(PREFECT_API_URL=way.url, PREFECT_WORKER_QUERY_SECONDS="1")
        yield made
        made.stop()


@pytest.fixture
def pool(pool_of_all: Pool, way: Unwell) -> Iterator[Pool]:
    """That pool; its flows have noted nothing yet, and nothing befalls its worker."""
    pool_of_all.project.notes_file.write_text("")
    logged = len(pool_of_all.log())
    yield pool_of_all
    way.fault = lambda method, path, body: None
    assert "Traceback" not in pool_of_all.log()[logged:]


def test_a_run_ended_by_hand_while_the_server_did_not_answer_stays_ended(pool: Pool, way: Unwell):
    ended: list[UUID] = []

    def befalls(method: str, path: str, body: bytes) -> int | None:
        found = re.search(r"flow_runs/([0-9a-f-]+)/set_state", path)
        if method != "POST" or found is None or ended:
            return None
        ended.append(UUID(found[1]))
        pool.client.set_flow_run_state(ended[0], Failed(name="By hand"), force=True)
        return 503

    way.fault = befalls
    run_id = pool.create("pid")
    eventually(lambda: ended == [run_id])
    second = pool.create("pid")  # which shows that the worker goes on
    assert pool.end(second).type is StateType.COMPLETED
    states = pool.client.read_flow_run_states(run_id)
    assert [state.name for state in states][-1] == "By hand"


@pytest.mark.parametrize("fault", [500, LOST])
def test_a_question_of_the_start_that_fails_once_is_asked_again(
    pool: Pool, way: Unwell, fault: Fault
):
    flow_id = pool.client.create_flow_from_name("environment")
    way.once_each(fault, ("GET", f"/api/flows/{flow_id}"))
    run_id = pool.create("environment", {"env": {"COLOUR": "teal"}}, name="COLOUR")
    assert pool.end(run_id).type is StateType.COMPLETED
    assert way.met
    assert [note.split()[0] for note in pool.project.notes] == ["teal"]


def test_a_run_ended_by_hand_while_our_word_waits_in_the_server_stays_ended(
    pool: Pool, way: Unwell
):
    """The end comes after the last question and before what the worker or the process says."""
    left = ["PENDING", "RUNNING", "COMPLETED"]
    said: dict[UUID, str] = {}
    logged = len(pool.log())

    def befalls(method: str, path: str, body: bytes) -> None:
        found = re.search(r"flow_runs/([0-9a-f-]+)/set_state", path)
        if method != "POST" or found is None or UUID(found[1]) in said or not left:
            return
        if json.loads(body)["state"]["type"] == left[0]:
            run_id = UUID(found[1])
            said[run_id] = left.pop(0)
            pool.client.set_flow_run_state(run_id, Failed(name="By hand"), force=True)

    way.fault = befalls
    runs = [pool.create("pid") for _ in range(3)]
    eventually(lambda: not left)
    last = pool.create("pid")  # which shows that the worker goes on
    assert pool.end(last).type is StateType.COMPLETED
    assert set(said) == set(runs)
    for run_id in runs:
        states = pool.client.read_flow_run_states(run_id)
        assert [state.name for state in states][-1] == "By hand"
    refused = [line for line in pool.log()[logged:].splitlines() if "ended as By hand" in line]
    assert len(refused) == len(said)
    assert all("| INFO " in line for line in refused)
