"""Runs whose batch is over are not run, also when it ended while no worker had it."""

from uuid import UUID, uuid4

import anyio
import pytest
from prefect import flow
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import State

from safelight.naming import BATCH_LABEL
from safelight.pool import belonging
from safelight.pool.belonging import Belonging, batch_of
from safelight.pool.fencing import awake
from tests.prefect_pool import Pool, begun, eventually


@flow
def _nothing() -> None:
    """Stands for a batch."""


def made_for(batch: UUID | None) -> FlowRun:
    labels = {} if batch is None else {BATCH_LABEL: str(batch)}
    return FlowRun(id=uuid4(), flow_id=uuid4(), labels=labels)


class Server:
    """One batch, as it stands; counts the questions."""

    def __init__(self, state: State | None) -> None:
        self.batch = FlowRun(id=uuid4(), flow_id=uuid4(), state=state)
        self.asked = 0
        self.there = True

    async def read(self, run_id: UUID) -> FlowRun:
        self.asked += 1
        if not self.there or run_id != self.batch.id:
            raise ObjectNotFound(Exception())
        return self.batch


@pytest.mark.parametrize("type_", list(StateType))
def test_the_state_of_a_batch_says_whether_its_runs_are_wanted(type_: StateType):
    server = Server(State(type=type_))
    why = anyio.run(Belonging(server.read).unwanted, made_for(server.batch.id))
    over = {StateType.CANCELLING, StateType.CANCELLED, StateType.COMPLETED}
    assert (why is not None) == (type_ in over)


def test_the_runs_of_a_deleted_batch_are_not_wanted_and_it_is_asked_for_once():
    server = Server(None)
    known = Belonging(server.read)
    assert anyio.run(known.unwanted, made_for(uuid4())) == "its batch was deleted"
    for _ in range(3):
        assert anyio.run(known.unwanted, made_for(server.batch.id)) is None
    assert server.asked == 2


def test_an_answer_is_believed_for_a_while(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(belonging, "KNOWN_SECONDS", 0.0)
    server = Server(None)
    known = Belonging(server.read)
    assert anyio.run(known.unwanted, made_for(server.batch.id)) is None
    server.there = False
    assert anyio.run(known.unwanted, made_for(server.batch.id)) is not None


def test_a_run_is_started_on_a_new_answer_alone():
    server = Server(None)
    known = Belonging(server.read)
    run = made_for(server.batch.id)
    assert anyio.run(known.unwanted, run) is None
    server.there = False  # a moment later
    assert anyio.run(known.unwanted, run) is None
    since = awake()
    assert anyio.run(known.unwanted, run, since) == "its batch was deleted"
    assert anyio.run(known.unwanted, run, since + 1) == "its batch was deleted"
    assert server.asked == 2


@pytest.mark.parametrize("label", [None, "", "no id", 7, True])
def test_a_run_of_no_batch_costs_no_question(label: object):
    server = Server(None)
    run = made_for(None)
    if label is not None:
        run.labels[BATCH_LABEL] = label
    assert batch_of(run) is None
    assert anyio.run(Belonging(server.read).unwanted, run) is None
    assert server.asked == 0


def test_what_a_batch_left_is_cancelled_by_the_workers_that_have_it(pool: Pool):
    """The batch has no worker of its own: it waits, and is deleted or cancelled there."""
    deleted, cancelled = (pool.client.create_flow_run(_nothing, tags=["batch"]) for _ in range(2))

    def of(batch: UUID, flow: str, **parameters: object) -> UUID:
        made = pool.client.create_flow_run_from_deployment(
            pool.deploy(flow), parameters=parameters, labels={BATCH_LABEL: str(batch)}
        )
        return made.id

    running = of(deleted.id, "steps", count=2400)
    pool.start_worker()
    begun(pool)
    waiting = [of(deleted.id, "pid"), of(cancelled.id, "pid")]
    pool.cancel(cancelled.id)
    pool.client.delete_flow_run(deleted.id)
    free = pool.create("pid")
    assert pool.end(running).type is StateType.CANCELLED
    assert pool.end(free).is_completed()
    for run in waiting:
        assert pool.end(run).type is StateType.CANCELLED
        states = pool.client.read_flow_run_states(run)
        assert [state.type for state in states if state.type is StateType.RUNNING] == []
    eventually(lambda: "is not started: its batch was" in pool.log())
