"""What is said of a run whose process died never undoes what others said meanwhile."""

from uuid import UUID

import anyio
import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.states import Cancelled, Cancelling, Completed, Failed, Pending, Running, State

from safelight.pool import orphans, reporting
from safelight.pool.ownership import Claim, released
from safelight.pool.process import Died
from tests.prefect_pool import Pool

MINE = Claim("me", 1)


@pytest.mark.parametrize(
    ("said", "end"),
    [
        (Cancelled(), "Cancelled"),
        (Cancelling(), "Cancelled"),
        (Failed(message="by hand"), "Failed"),
        (Completed(name="Good", message="by hand"), "Good"),
        (None, "AwaitingRetry"),
    ],
)
def test_a_run_that_ends_in_between_has_that_end(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, said: State | None, end: str
):
    run = pool.create("pid")
    pool.client.set_flow_run_state(run, Running(), force=True)
    real = reporting.next_state

    def meanwhile(*arguments: object) -> State:
        if said is not None:
            pool.client.set_flow_run_state(run, said, force=True)
        return real(*arguments)

    monkeypatch.setattr(reporting, "next_state", meanwhile)
    anyio.run(reporting.conclude, run, MINE, Died(-9), False, 5)
    assert pool.state(run).name == end
    if said is not None and said.message:
        assert pool.state(run).message == said.message


@pytest.mark.parametrize("way", ["conclude", "take over"])
def test_a_run_that_ends_while_its_restarts_are_counted_is_left_alone(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, way: str
):
    module = reporting if way == "conclude" else orphans
    run = pool.create("pid")
    pool.client.set_flow_run_state(run, Running(), force=True)
    pool.client.update_flow_run(run, infrastructure_pid=released(1))
    real = module.restarted

    async def meanwhile(client: PrefectClient, flow_run_id: UUID) -> int:
        pool.client.set_flow_run_state(run, Cancelled(), force=True)
        return await real(client, flow_run_id)

    async def see_to_it() -> None:
        if way == "conclude":
            await reporting.conclude(run, MINE, Died(-9), False, 5)
        else:
            async with get_client() as client:
                await orphans.take_over(client, pool.name, set(), orphans.Leases())

    monkeypatch.setattr(module, "restarted", meanwhile)
    anyio.run(see_to_it)
    names = [state.name for state in pool.client.read_flow_run_states(run)]
    assert names[-2:] == ["Running", "Cancelled"]


@pytest.mark.parametrize("number", [1, 2])
def test_a_run_that_was_given_to_another_worker_is_left_alone(pool: Pool, number: int):
    run = pool.create("pid")
    pool.client.set_flow_run_state(run, Running(), force=True)
    pool.client.update_flow_run(run, infrastructure_pid=released(number))
    anyio.run(reporting.conclude, run, MINE, Died(-9), False, 5)
    assert pool.state(run).is_running()


def test_a_finished_run_is_left_alone(pool: Pool):
    run = pool.create("pid")
    pool.client.set_flow_run_state(run, Completed(), force=True)
    anyio.run(reporting.conclude, run, MINE, Died(-9), False, 5)
    assert pool.state(run).is_completed()


def test_restarts_are_counted_though_the_run_never_began(pool: Pool):
    run = pool.create("pid")
    for expected in ("AwaitingRetry", "AwaitingRetry", "Crashed"):
        pool.client.set_flow_run_state(run, Pending(), force=True)
        anyio.run(reporting.conclude, run, MINE, Died(-9), False, 2)
        assert pool.state(run).name == expected
