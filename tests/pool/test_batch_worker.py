"""Workers of runs that wait for others: many at once, handed on by the first signal, taken over."""

import signal

import psutil
import pytest
from prefect.client.schemas.objects import StateType

from safelight.pool.ownership import Owner
from tests.prefect_pool import Pool, begun, children, eventually

FOR_LONG = 2400
"""Steps of runs that never get so far."""


def test_each_run_has_a_process_of_its_own_and_the_first_signal_hands_them_on(batches: Pool):
    worker = batches.start_worker(SAFELIGHT_POOL_DEVICES="cpu:1", SAFELIGHT_POOL_PRELOAD="no.such")
    runs = [batches.create("steps", count=FOR_LONG) for _ in range(3)]
    eventually(lambda: batches.project.notes == ["begin"] * 3)
    owners = [
        eventually(lambda run=run: Owner.parse(batches.read(run).infrastructure_pid))
        for run in runs
    ]
    assert {owner.pid for owner in owners} == {child.pid for child in children(worker)}
    assert {owner.worker_pid for owner in owners} == {worker.pid}
    cancelled, deleted, goes_on = runs
    short = batches.create("pid")
    batches.cancel(cancelled)
    batches.client.delete_flow_run(deleted)
    psutil.Process(owners[-1].pid).kill()
    assert batches.end(cancelled).type is StateType.CANCELLED
    assert batches.end(short).is_completed()
    eventually(lambda: batches.project.notes.count("begin") == 4)
    (child,) = eventually(lambda: found if len(found := children(worker)) == 1 else None)
    assert child.pid not in {owner.pid for owner in owners}
    worker.send_signal(signal.SIGTERM)  # once
    worker.wait(60)
    assert batches.state(goes_on).name == "AwaitingRetry"
    assert batches.state(goes_on).message.endswith("goes on in another process")
    assert "end" not in batches.project.notes


@pytest.mark.soak
def test_a_run_goes_on_whatever_ends_its_process_and_its_worker(batches: Pool):
    first = batches.start_worker()
    run = batches.create("steps", count=100)
    begun(batches)
    (child,) = children(first)
    child.kill()
    eventually(lambda: batches.project.notes.count("begin") == 2)
    first.send_signal(signal.SIGTERM)  # once
    first.wait(60)
    assert batches.state(run).name == "AwaitingRetry"
    assert batches.state(run).message.endswith("goes on in another process")
    second = batches.start_worker("two")
    eventually(lambda: batches.project.notes.count("begin") == 3)
    before = eventually(lambda: Owner.parse(batches.read(run).infrastructure_pid))
    (child,) = children(second)
    second.kill()
    child.kill()
    eventually(lambda: not psutil.pid_exists(child.pid))
    assert batches.state(run).is_running()
    batches.start_worker("three")
    assert batches.end(run).is_completed()
    after = Owner.parse(batches.read(run).infrastructure_pid)
    assert after.claim.number > before.claim.number
    assert batches.project.notes == [*["begin"] * 4, "end"]
