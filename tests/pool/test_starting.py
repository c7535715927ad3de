"""A run that was ended or deleted since it was seen to wait is not started, nor told of."""

import json
import threading
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import anyio
import httpx
import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import Abort, ObjectNotFound
from prefect.states import Completed, Failed, Pending, Running

from safelight.pool.fencing import DECIDE_SECONDS, awake
from safelight.pool.starting import Starting
from tests.prefect_pool import Pool, eventually
from tests.unwell import LOST, Fault, unwell


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


@pytest.mark.soak
def test_a_run_ended_by_hand_while_the_server_did_not_answer_stays_ended(
    pool: Pool, prefect_server: str
):
    run_id = pool.create("pid")
    ended = threading.Event()
    with unwell(prefect_server) as way:

        def befalls(method: str, path: str, body: bytes) -> int | None:
            if method != "POST" or f"{run_id}/set_state" not in path or ended.is_set():
                return None
            pool.client.set_flow_run_state(run_id, Failed(name="By hand"), force=True)
            ended.set()
            return 503

        way.fault = befalls
        pool.start_worker(PREFECT_API_URL=way.url)
        eventually(ended.is_set)
        second = pool.create("pid")  # which shows that the worker goes on
        assert pool.end(second).type is StateType.COMPLETED
    states = pool.client.read_flow_run_states(run_id)
    assert [state.name for state in states][-1] == "By hand"


@pytest.mark.parametrize("fault", [500, pytest.param(LOST, marks=pytest.mark.soak)])
def test_a_question_of_the_start_that_fails_once_is_asked_again(
    pool: Pool, prefect_server: str, fault: Fault
):
    run_id = pool.create("environment", {"env": {"COLOUR": "teal"}}, name="COLOUR")
    with unwell(prefect_server) as way:
        way.once_each(fault, ("GET", f"/api/flows/{pool.read(run_id).flow_id}"))
        pool.start_worker(PREFECT_API_URL=way.url)
        assert pool.end(run_id).type is StateType.COMPLETED
        assert way.met
    assert [note.split()[0] for note in pool.project.notes] == ["teal"]
    assert "Traceback" not in pool.log()


@pytest.mark.soak
def test_a_run_ended_by_hand_while_our_word_waits_in_the_server_stays_ended(
    pool: Pool, prefect_server: str
):
    """The end comes after the last question and before what the worker or the process says."""
    said = {
        pool.create("pid"): "PENDING",
        pool.create("pid"): "RUNNING",
        pool.create("pid"): "COMPLETED",
    }
    left = set(said)
    with unwell(prefect_server) as way:

        def befalls(method: str, path: str, body: bytes) -> None:
            for run_id in left:
                told = method == "POST" and f"flow_runs/{run_id}/set_state" in path
                if told and json.loads(body)["state"]["type"] == said[run_id]:
                    left.remove(run_id)
                    pool.client.set_flow_run_state(run_id, Failed(name="By hand"), force=True)
                    return

        way.fault = befalls
        pool.start_worker(PREFECT_API_URL=way.url)
        eventually(lambda: not left)
        last = pool.create("pid")  # which shows that the worker goes on
        assert pool.end(last).type is StateType.COMPLETED
    for run_id in said:
        states = pool.client.read_flow_run_states(run_id)
        assert [state.name for state in states][-1] == "By hand"
    refused = [line for line in pool.log().splitlines() if "ended as By hand" in line]
    assert len(refused) == len(said)
    assert all("| INFO " in line for line in refused)
    assert "Traceback" not in pool.log()
