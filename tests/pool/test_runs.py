"""Runs on a worker that stays: what they find, how they end, what is left for the next one."""

import os
import re

import psutil
import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.states import Cancelled, Completed, Crashed, Failed

from tests.prefect_pool import Pool, begun, children, eventually


@pytest.fixture
def pool(shared_pool: Pool) -> Pool:
    """The work pool of this file, whose worker is there; its flows have noted nothing yet."""
    shared_pool.project.notes_file.write_text("")
    return shared_pool


def test_runs_share_one_process_that_outlives_them(pool: Pool):
    (worker,) = pool.workers
    runs = [pool.create("pid") for _ in range(3)]
    assert {pool.end(run).type for run in runs} == {StateType.COMPLETED}
    (child,) = children(worker)
    assert pool.project.notes == [str(child.pid)] * 3


def test_environment_and_folder_of_a_run_end_with_it(pool: Pool, tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    variables = {"env": {"COLOUR": "red"}, "working_dir": str(folder)}
    pool.end(pool.create("environment", variables, name="COLOUR"))
    pool.end(pool.create("environment", name="COLOUR"))
    assert pool.project.notes == [f"red {folder}", f"None {os.getcwd()}"]


def test_a_cancelled_run_stops_at_its_next_step_and_the_process_stays(pool: Pool):
    (worker,) = pool.workers
    (child,) = children(worker)
    run = pool.create("steps", count=2000)
    begun(pool)
    pool.cancel(run)
    assert pool.end(run).type is StateType.CANCELLED
    other = pool.create("pid")
    assert pool.end(other).is_completed()
    assert pool.project.notes == ["begin", str(child.pid)]


def test_a_run_that_ignores_the_request_is_killed_and_ends_cancelled(pool: Pool):
    (worker,) = pool.workers
    (child,) = children(worker)
    run = pool.create("stubborn", {"grace_seconds": 0.5})
    begun(pool)
    pool.cancel(run)
    assert pool.end(run).type is StateType.CANCELLED
    eventually(lambda: not psutil.pid_exists(child.pid))
    assert pool.end(pool.create("pid")).is_completed()


@pytest.mark.parametrize(
    "end",
    [
        "deleted",
        Completed,
        *(pytest.param(end, marks=pytest.mark.soak) for end in (Failed, Crashed, Cancelled)),
    ],
)
def test_a_run_that_is_deleted_or_ended_by_hand_leaves_its_process_to_the_next(
    pool: Pool, end: "str | type[State]"
):
    (worker,) = pool.workers
    (child,) = children(worker)
    run = pool.create("steps", count=2000)
    begun(pool)
    logged = len(pool.log())
    if isinstance(end, str):
        pool.client.delete_flow_run(run)
    else:
        pool.client.set_flow_run_state(run, end(message="by hand"), force=True)
    assert pool.end(pool.create("pid")).is_completed()
    assert pool.project.notes == ["begin", str(child.pid)]
    assert "Traceback" not in pool.log()[logged:]
    if not isinstance(end, str):
        assert pool.state(run).message == "by hand"
        assert pool.page(run) == []


def test_cancelling_reaches_into_a_subflow(pool: Pool):
    run = pool.create("outer", count=2000)
    begun(pool)
    pool.cancel(run)
    assert pool.end(run).type is StateType.CANCELLED
    assert "end" not in pool.project.notes


def test_a_run_whose_process_is_killed_starts_again_once(pool: Pool):
    (worker,) = pool.workers
    (child,) = children(worker)
    run = pool.create("suicide", times=1)
    assert pool.end(run).is_completed()
    assert pool.project.notes == ["begin"] * 2
    (fresh,) = children(worker)
    assert fresh.pid != child.pid


def test_a_run_that_kills_every_process_ends_as_crashed(pool: Pool):
    run = pool.create("suicide", times=9)
    state = pool.end(run)
    assert state.is_crashed()
    assert re.match(r"\[UNKNOWN_ERROR\] .*-9.* Fix: .*retry the run", state.message or "")
    assert pool.client.read_flow_run(run).tags == ["error:UNKNOWN_ERROR"]
    assert pool.project.notes == ["begin"] * 2
    assert pool.end(pool.create("pid")).is_completed()


def test_a_process_that_dies_while_it_imports_the_flow_is_not_started_for_ever(pool: Pool):
    (pool.project.folder / "deadly.py").write_text(
        "import os\nopen(os.environ['NOTES'], 'a').write('import\\n')\nos.kill(os.getpid(), 9)\n"
    )
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
    assert pool.end(pool.create("broken", {"restarts": 0})).is_crashed()
    assert pool.end(pool.create("pid")).is_completed()


def test_a_run_with_a_parameter_nobody_knows_fails_at_once(pool: Pool):
    run = pool.create("value", colour="red")
    state = pool.end(run)
    assert state.type is StateType.FAILED
    assert (state.message or "").startswith("[CONTRACT_MISMATCH] ")
    assert pool.client.read_flow_run(run).tags == ["error:CONTRACT_MISMATCH"]
    assert "colour" in (state.message or "")
    assert pool.end(pool.create("pid")).is_completed()


def test_a_run_for_another_device_is_left_to_other_workers(pool: Pool):
    gpu = pool.create("pid", {"device": "cuda"})
    assert pool.end(pool.create("pid")).is_completed()
    assert pool.state(gpu).is_scheduled()
