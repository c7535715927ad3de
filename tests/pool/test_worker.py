"""The worker type as Prefect starts it: real runs, real signals, a real server."""

import os
import signal
import time
from uuid import UUID

import psutil
import pytest
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import StateType

from tests.prefect_pool import Pool, children, eventually


def begun(pool: Pool, times: int = 1) -> None:
    eventually(lambda: pool.project.notes.count("begin") >= times)


def free_again(pool: Pool, run: UUID) -> None:
    # given a second after the run began, which has ended by then
    eventually(lambda: pool.read(run).labels.get("prefect.worker.name"))


def test_runs_share_one_process_that_outlives_them(pool: Pool):
    worker = pool.start_worker()
    runs = [pool.create("pid") for _ in range(3)]
    assert {pool.end(run).type for run in runs} == {StateType.COMPLETED}
    (child,) = children(worker)
    assert pool.project.notes == [str(child.pid)] * 3


def test_environment_and_folder_of_a_run_end_with_it(pool: Pool, tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    pool.start_worker()
    variables = {"env": {"COLOUR": "red"}, "working_dir": str(folder)}
    pool.end(pool.create("environment", variables, name="COLOUR"))
    pool.end(pool.create("environment", name="COLOUR"))
    assert pool.project.notes == [f"red {folder}", f"None {os.getcwd()}"]


def test_what_a_flow_prints_and_logs_goes_to_its_run(pool: Pool):
    pool.start_worker(PREFECT_LOGGING_LOG_PRINTS="true")
    run = pool.create("pid")
    pool.end(run)
    only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
    eventually(
        lambda: any("here is process" in line.message for line in pool.client.read_logs(only))
    )
    assert "here is process" in pool.log()


def test_a_cancelled_run_stops_at_its_next_step_and_the_process_stays(pool: Pool):
    worker = pool.start_worker()
    (child,) = children(worker)
    run = pool.create("steps", count=2000)
    begun(pool)
    pool.cancel(run)
    assert pool.end(run).type is StateType.CANCELLED
    other = pool.create("pid")
    assert pool.end(other).is_completed()
    assert pool.project.notes == ["begin", str(child.pid)]


def test_a_run_that_ignores_the_request_is_killed_and_ends_cancelled(pool: Pool):
    worker = pool.start_worker()
    (child,) = children(worker)
    run = pool.create("stubborn", {"grace_seconds": 0.5})
    begun(pool)
    pool.cancel(run)
    assert pool.end(run).type is StateType.CANCELLED
    eventually(lambda: not psutil.pid_exists(child.pid))
    assert pool.end(pool.create("pid")).is_completed()


@pytest.mark.parametrize("waiting", ["scheduled", "retrying"])
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


def test_cancelling_reaches_into_a_subflow(pool: Pool):
    pool.start_worker()
    run = pool.create("outer", count=2000)
    begun(pool)
    pool.cancel(run)
    assert pool.end(run).type is StateType.CANCELLED
    assert "end" not in pool.project.notes


def test_a_run_whose_process_is_killed_starts_again_once(pool: Pool):
    worker = pool.start_worker()
    (child,) = children(worker)
    run = pool.create("suicide", times=1)
    assert pool.end(run).is_completed()
    assert pool.project.notes == ["begin"] * 2
    (fresh,) = children(worker)
    assert fresh.pid != child.pid


def test_a_run_that_kills_every_process_ends_as_crashed(pool: Pool):
    pool.start_worker()
    run = pool.create("suicide", times=9)
    state = pool.end(run)
    assert state.is_crashed()
    assert "-9" in (state.message or "")
    assert pool.project.notes == ["begin"] * 2
    assert pool.end(pool.create("pid")).is_completed()


def test_a_process_that_dies_while_it_imports_the_flow_is_not_started_for_ever(pool: Pool):
    (pool.project.folder / "deadly.py").write_text(
        "import os\nopen(os.environ['NOTES'], 'a').write('import\\n')\nos.kill(os.getpid(), 9)\n"
    )
    pool.start_worker()
    deployment = pool.client.create_deployment(
        pool.client.create_flow_from_name("deadly"),
        name=f"deadly-{pool.name}",
        entrypoint="deadly.flow",
        work_pool_name=pool.name,
    )
    run = pool.client.create_flow_run_from_deployment(deployment).id
    assert pool.end(run).is_crashed()
    assert pool.project.notes == ["import"] * 2


def test_code_that_ends_the_process_is_a_crash(pool: Pool):
    pool.start_worker()
    assert pool.end(pool.create("broken", {"restarts": 0})).is_crashed()
    assert pool.end(pool.create("pid")).is_completed()


def test_a_run_with_a_parameter_nobody_knows_fails_at_once(pool: Pool):
    pool.start_worker()
    state = pool.end(pool.create("value", colour="red"))
    assert state.type is StateType.FAILED
    assert "[CONTRACT_MISMATCH]" in (state.message or "")
    assert "colour" in (state.message or "")
    assert pool.end(pool.create("pid")).is_completed()


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


def test_the_second_sigterm_hands_running_runs_on(pool: Pool):
    worker = pool.start_worker()
    run = pool.create("steps", count=60)
    begun(pool)
    worker.send_signal(signal.SIGTERM)
    eventually(lambda: "taking no new runs" in pool.log())
    worker.send_signal(signal.SIGTERM)
    worker.wait(60)
    assert pool.state(run).name == "AwaitingRetry"
    pool.start_worker("two")
    assert pool.end(run).is_completed()


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


def test_a_run_for_another_device_is_left_to_other_workers(pool: Pool):
    pool.start_worker()
    gpu = pool.create("pid", {"device": "cuda"})
    assert pool.end(pool.create("pid")).is_completed()
    assert pool.state(gpu).is_scheduled()


def test_two_devices_run_side_by_side_and_runs_return_to_what_is_warm(pool: Pool):
    worker = pool.start_worker(SAFELIGHT_POOL_DEVICES="cpu:2")
    eventually(lambda: len(children(worker)) == 2)
    first = pool.create("steps", count=100)
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
