"""Workers as Prefect starts them come and go: real signals, a real server.

A worker that one test leaves serves the next: each takes many seconds to start.
"""

import signal
import subprocess
import time
from collections.abc import Iterator
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL, temporary_settings

from safelight.store.results import register_results
from tests.prefect_pool import Pool, Project, begun, children, eventually


@pytest.fixture(scope="module")
def pool_of_all(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """A work pool; its workers and their processes are gone afterwards."""
    project = Project(tmp_path_factory.mktemp("worker"))
    with (
        pytest.MonkeyPatch.context() as patch,
        temporary_settings({PREFECT_API_URL: prefect_server}),
        get_client(sync_client=True) as client,
    ):
        patch.setenv("PREFECT_API_URL", prefect_server)
        register_results()
        made = Pool(client, project)
        yield made
        made.stop()


@pytest.fixture
def pool(pool_of_all: Pool) -> Pool:
    """That pool; its flows have noted nothing yet."""
    pool_of_all.project.notes_file.write_text("")
    return pool_of_all


def newest(pool: Pool) -> str:
    """Name of the last worker that was started."""
    return f"worker-{len(pool.workers)}"


def another(pool: Pool, **environment: str) -> "subprocess.Popen[bytes]":
    """One more worker."""
    name = f"worker-{len(pool.workers) + 1}"
    return pool.start_worker(name, **environment)


def standing(pool: Pool) -> "subprocess.Popen[bytes]":
    """The worker that is there; started when there is none."""
    if pool.workers and pool.workers[-1].poll() is None:
        return pool.workers[-1]
    return another(pool, PREFECT_LOGGING_LOG_PRINTS="true")


def free_again(pool: Pool, run: UUID) -> None:
    # given a second after the run began, which has ended by then
    eventually(lambda: pool.read(run).labels.get("prefect.worker.name"))


def test_queues_are_served_by_priority_and_what_was_cancelled_is_not(pool: Pool):
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
    cancelled = pool.create("pid")
    pool.cancel(cancelled)  # before there is a worker
    for queue in ("night", "urgent"):  # the later one goes first
        created[queue] = pool.client.create_flow_run_from_deployment(
            deployment, parameters={"name": "X"}, work_queue_name=queue, job_variables={}
        ).id
        time.sleep(0.05)
    standing(pool)  # the first one
    for run in created.values():
        pool.end(run)
    started = {name: pool.read(run).start_time for name, run in created.items()}
    assert started["urgent"] < started["night"]
    assert pool.end(cancelled).type is StateType.CANCELLED
    assert len(pool.project.notes) == 2


def test_what_a_flow_prints_and_logs_goes_to_its_run(pool: Pool):
    standing(pool)
    run = pool.create("pid")
    pool.end(run)
    only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
    eventually(
        lambda: any("here is process" in line.message for line in pool.client.read_logs(only))
    )
    assert "here is process" in pool.log(newest(pool))


def test_a_run_that_waits_to_be_tried_again_is_cancelled(standing_pool: Pool):
    run = standing_pool.create("failing", {"grace_seconds": 0.5})
    eventually(lambda: standing_pool.state(run).name == "AwaitingRetry")
    standing_pool.cancel(run)
    assert standing_pool.end(run).type is StateType.CANCELLED


def test_a_killed_worker_leaves_no_orphan_and_another_goes_on(pool: Pool):
    worker = standing(pool)
    (child,) = children(worker)
    run = pool.create("steps", count=60)
    begun(pool)
    worker.kill()
    eventually(lambda: not psutil.pid_exists(child.pid))
    assert not pool.state(run).is_final()
    another(pool)
    assert pool.end(run).is_completed()
    assert pool.project.notes == ["begin", "begin", "end"]


def test_runs_of_a_machine_that_went_down_are_taken_over(pool: Pool):
    worker = standing(pool)
    (child,) = children(worker)
    run = pool.create("steps", count=60)
    begun(pool)
    eventually(lambda: pool.read(run).infrastructure_pid)
    worker.kill()
    child.kill()
    assert pool.state(run).is_running()
    another(pool)
    assert pool.end(run).is_completed()


def test_the_second_sigterm_hands_running_runs_on(pool: Pool):
    worker = standing(pool)
    run = pool.create("steps", count=60)
    begun(pool)
    worker.send_signal(signal.SIGTERM)
    eventually(lambda: "taking no new runs" in pool.log(newest(pool)))
    worker.send_signal(signal.SIGTERM)
    worker.wait(120)
    assert pool.state(run).name == "AwaitingRetry"
    assert "result" not in {artifact.key for artifact in pool.page(run)}
    another(pool)
    assert pool.end(run).is_completed()
    assert [artifact.key for artifact in pool.page(run)].count("result") == 1


def test_the_first_sigterm_drains(pool: Pool):
    worker = standing(pool)
    (child,) = children(worker)
    running, waiting = pool.create("steps", count=60), pool.create("pid")
    begun(pool)
    worker.send_signal(signal.SIGTERM)
    worker.wait(120)
    assert pool.state(running).is_completed()
    assert pool.state(waiting).is_scheduled()
    assert not psutil.pid_exists(child.pid)
    pool.client.delete_flow_run(waiting)


def test_two_devices_run_side_by_side_and_runs_return_to_what_is_warm(pool: Pool):
    worker = another(pool, SAFELIGHT_POOL_DEVICES="cpu:2")
    eventually(lambda: len(children(worker)) == 2)
    first = pool.create("steps", count=10_000)
    begun(pool)
    assert pool.end(pool.create("pid")).is_completed()
    assert pool.state(first).is_running()
    pool.cancel(first)
    assert pool.end(first).type is StateType.CANCELLED
    for _ in range(3):
        run = pool.create("pid")
        pool.end(run)
        free_again(pool, run)
    pids = [note for note in pool.project.notes if note.isdigit()]
    assert len(set(pids)) == 1
