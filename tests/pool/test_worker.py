"""Workers as Prefect starts them come and go: real signals, a real server."""

import signal
import time
from uuid import UUID

import psutil
import pytest
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import StateType

from tests.prefect_pool import Pool, begun, children, eventually


def free_again(pool: Pool, run: UUID) -> None:
    # given a second after the run began, which has ended by then
    eventually(lambda: pool.read(run).labels.get("prefect.worker.name"))


def test_what_a_flow_prints_and_logs_goes_to_its_run(pool: Pool):
    pool.start_worker(PREFECT_LOGGING_LOG_PRINTS="true")
    run = pool.create("pid")
    pool.end(run)
    only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
    eventually(
        lambda: any("here is process" in line.message for line in pool.client.read_logs(only))
    )
    assert "here is process" in pool.log()


@pytest.mark.parametrize("waiting", ["scheduled", pytest.param("retrying", marks=pytest.mark.soak)])
def test_a_waiting_run_is_cancelled(pool: Pool, waiting: str):
    if waiting == "scheduled":
        run = pool.create("pid")
        pool.cancel(run)
        pool.start_worker()
    else:
        pool.start_worker()
        run = pool.create("failing", {"grace_seconds": 0.5})
        eventually(lambda: pool.state(run).name == "AwaitingRetry")
        pool.cancel(run)
    assert pool.end(run).type is StateType.CANCELLED


def test_a_killed_worker_leaves_no_orphan_and_another_goes_on(pool: Pool):
    worker = pool.start_worker()
    (child,) = children(worker)
    run = pool.create("steps", count=60)
    begun(pool)
    worker.kill()
    eventually(lambda: not psutil.pid_exists(child.pid))
    assert not pool.state(run).is_final()
    pool.start_worker("two")
    assert pool.end(run).is_completed()
    assert pool.project.notes == ["begin", "begin", "end"]


@pytest.mark.soak
def test_runs_of_a_machine_that_went_down_are_taken_over(pool: Pool):
    worker = pool.start_worker()
    (child,) = children(worker)
    run = pool.create("steps", count=60)
    begun(pool)
    eventually(lambda: pool.read(run).infrastructure_pid)
    worker.kill()
    child.kill()
    assert pool.state(run).is_running()
    pool.start_worker("two")
    assert pool.end(run).is_completed()


def test_the_first_sigterm_drains(pool: Pool):
    worker = pool.start_worker()
    (child,) = children(worker)
    running, waiting = pool.create("steps", count=60), pool.create("pid")
    begun(pool)
    worker.send_signal(signal.SIGTERM)
    worker.wait(60)
    assert pool.state(running).is_completed()
    assert pool.state(waiting).is_scheduled()
    assert not psutil.pid_exists(child.pid)


@pytest.mark.soak
def test_the_second_sigterm_hands_running_runs_on(pool: Pool):
    worker = pool.start_worker()
    run = pool.create("steps", count=60)
    begun(pool)
    worker.send_signal(signal.SIGTERM)
    eventually(lambda: "taking no new runs" in pool.log())
    worker.send_signal(signal.SIGTERM)
    worker.wait(60)
    assert pool.state(run).name == "AwaitingRetry"
    assert "result" not in {artifact.key for artifact in pool.page(run)}
    pool.start_worker("two")
    assert pool.end(run).is_completed()
    assert [artifact.key for artifact in pool.page(run)].count("result") == 1


@pytest.mark.soak
def test_queues_are_served_by_priority(pool: Pool):
    low = pool.client.request(
        "POST", f"/work_pools/{pool.name}/queues/", json={"name": "night", "priority": 9}
    )
    high = pool.client.request(
        "POST", f"/work_pools/{pool.name}/queues/", json={"name": "urgent", "priority": 1}
    )
    assert low.is_success
    assert high.is_success
    deployment = pool.deploy("environment")
    created: dict[str, UUID] = {}
    for queue in ("night", "urgent"):  # the later one goes first
        created[queue] = pool.client.create_flow_run_from_deployment(
            deployment, parameters={"name": "X"}, work_queue_name=queue, job_variables={}
        ).id
        time.sleep(0.05)
    pool.start_worker()
    for run in created.values():
        pool.end(run)
    started = {name: pool.read(run).start_time for name, run in created.items()}
    assert started["urgent"] < started["night"]


@pytest.mark.soak
def test_two_devices_run_side_by_side_and_runs_return_to_what_is_warm(pool: Pool):
    worker = pool.start_worker(SAFELIGHT_POOL_DEVICES="cpu:2")
    eventually(lambda: len(children(worker)) == 2)
    first = pool.create("steps", count=250)
    begun(pool)
    assert pool.end(pool.create("pid")).is_completed()
    assert pool.state(first).is_running()
    assert pool.end(first).is_completed()
    for _ in range(3):
        run = pool.create("pid")
        pool.end(run)
        free_again(pool, run)
    pids = [note for note in pool.project.notes if note.isdigit()]
    assert len(set(pids)) == 1
