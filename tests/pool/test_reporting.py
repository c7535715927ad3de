"""What is said of a run whose process died never undoes what others said meanwhile."""

import anyio
import pytest
from prefect.states import Cancelled, Cancelling, Completed, Pending, Running, State

from safelight.pool import reporting
from safelight.pool.process import Died
from tests.prefect_pool import Pool


@pytest.mark.parametrize(
    ("said", "end"), [(Cancelled, "Cancelled"), (Cancelling, "Cancelled"), (None, "AwaitingRetry")]
)
def test_a_run_cancelled_in_between_is_cancelled(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, said: type[State] | None, end: str
):
    run = pool.create("pid")
    pool.client.set_flow_run_state(run, Running(), force=True)
    real = reporting.next_state

    def meanwhile(*arguments: object) -> State:
        if said is not None:
            pool.client.set_flow_run_state(run, said(), force=True)
        return real(*arguments)

    monkeypatch.setattr(reporting, "next_state", meanwhile)
    anyio.run(reporting.settle, run, Died(-9), False, 5)
    assert pool.state(run).name == end


def test_a_finished_run_is_left_alone(pool: Pool):
    run = pool.create("pid")
    pool.client.set_flow_run_state(run, Completed(), force=True)
    anyio.run(reporting.settle, run, Died(-9), False, 5)
    assert pool.state(run).is_completed()


def test_restarts_are_counted_though_the_run_never_began(pool: Pool):
    run = pool.create("pid")
    for expected in ("AwaitingRetry", "AwaitingRetry", "Crashed"):
        pool.client.set_flow_run_state(run, Pending(), force=True)
        anyio.run(reporting.settle, run, Died(-9), False, 2)
        assert pool.state(run).name == expected
