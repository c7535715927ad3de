"""One warm process, its worker played by the test."""

import os
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from safelight.pool.devices import Device
from safelight.pool.messages import Ended, Run, ToProcess
from safelight.pool.process import Died, Outcome, WarmProcess, _line
from safelight.progress import StopReason
from safelight.settings import reload_settings
from safelight.store.results import register_results
from safelight.store.store import current_store
from tests.prefect_pool import Pool, Project, begun

DEVICE = Device("cpu:0", "cpu", 8.0, (("SAFELIGHT_DEVICE", "cpu"),))


@pytest.fixture(scope="module")
def pool_of_all(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """A work pool without any worker, and flows; this process has the environment of a worker."""
    project = Project(tmp_path_factory.mktemp("process"))
    with (
        pytest.MonkeyPatch.context() as patch,
        temporary_settings({PREFECT_API_URL: prefect_server}),
        get_client(sync_client=True) as client,
    ):
        for name, value in {**project.environment, "PREFECT_API_URL": prefect_server}.items():
            patch.setenv(name, value)
        patch.delenv("OMP_WAIT_POLICY", raising=False)
        reload_settings()
        current_store.cache_clear()
        register_results()
        yield Pool(client, project)
    reload_settings()
    current_store.cache_clear()


@pytest.fixture(scope="module")
def process(pool_of_all: Pool) -> Iterator[WarmProcess]:
    """One for all tests, each of which may end it: it starts again when it is needed."""
    made = WarmProcess(DEVICE)
    yield made
    made.close()


@pytest.fixture
def pool(pool_of_all: Pool) -> Pool:
    """That pool; nothing of an earlier test is left in the settings and the notes."""
    reload_settings()
    pool_of_all.project.notes_file.write_text("")
    return pool_of_all


def ended(future: "Future[Outcome]") -> Ended:
    outcome = future.result(60)
    assert isinstance(outcome, Ended)
    return outcome


def run(pool: Pool, process: WarmProcess, flow: str, **parameters: object) -> UUID:
    created = pool.create(flow, **parameters)
    assert ended(process.run(Run(flow_run_id=created))).outcome == "reported"
    return created


def test_a_changed_flow_is_never_run_from_memory(pool: Pool, process: WarmProcess):
    run(pool, process, "value")
    first, starts = process.pid, process.starts
    source = pool.project.module.read_text()
    pool.project.module.write_text(source.replace("VALUE = 1", "VALUE = 2"))
    run(pool, process, "value")
    assert pool.project.notes == ["1", "2"]
    assert process.pid != first
    os.utime(pool.project.module, (1, 1))  # written in the same second as it was read
    run(pool, process, "value")
    run(pool, process, "value")
    assert process.starts == starts + 2


def test_another_version_of_a_deployment_gets_a_fresh_process(pool: Pool, process: WarmProcess):
    starts = list[int]()
    for version in ("1", "1", "2", "2"):
        deployment = pool.deploy("pid", version=version)
        created = pool.client.create_flow_run_from_deployment(deployment).id
        assert ended(process.run(Run(flow_run_id=created))).outcome == "reported"
        starts.append(process.starts)
    first = starts[0]
    assert starts == [first, first, first + 1, first + 1]


def test_a_changed_source_of_this_project_is_seen_before_the_next_run(
    pool: Pool, process: WarmProcess, monkeypatch: pytest.MonkeyPatch
):
    from safelight.pool import freshness

    package = pool.project.folder / "extra_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(pool.project.folder))
    monkeypatch.setattr(freshness, "PACKAGES", (*freshness.PACKAGES, "extra_package"))
    run(pool, process, "pid")
    starts = process.starts
    run(pool, process, "pid")
    assert process.starts == starts
    (package / "new.py").write_text("")
    run(pool, process, "pid")
    assert process.starts == starts + 1


def test_a_process_is_replaced_after_its_share_of_runs(
    pool: Pool, process: WarmProcess, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SAFELIGHT_POOL_RECYCLE_AFTER", "2")
    reload_settings()
    process.close()
    for _ in range(3):
        run(pool, process, "pid")
    assert [pool.project.notes.count(pid) for pid in dict.fromkeys(pool.project.notes)] == [2, 1]


@pytest.mark.soak
def test_a_process_that_holds_too_much_memory_is_replaced(
    pool: Pool, process: WarmProcess, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SAFELIGHT_POOL_PROCESS_MEMORY_GIB", "0.5")
    reload_settings()
    run(pool, process, "pid")
    run(pool, process, "greedy", mebibytes=600)
    run(pool, process, "pid")
    first, greedy, last = pool.project.notes
    assert first == greedy != last


def test_a_run_that_is_stopped_before_it_began_does_not_begin(pool: Pool, process: WarmProcess):
    busy, waiting = pool.create("steps", count=2000), pool.create("pid")
    future = process.run(Run(flow_run_id=busy))
    begun(pool)
    process.stop(waiting, StopReason.CANCEL)  # of another run: nothing happens
    process.stop(busy, StopReason.CANCEL)
    assert ended(future).outcome == "reported"
    assert pool.state(busy).is_cancelled()


def test_a_killed_process_says_how_it_ended(pool: Pool, process: WarmProcess):
    future = process.run(Run(flow_run_id=pool.create("stubborn")))
    begun(pool)
    starts = process.starts
    process.kill()
    assert future.result(60) == Died(-9)
    run(pool, process, "pid")
    assert process.starts == starts + 1


def test_closing_ends_an_idle_process(pool: Pool, process: WarmProcess):
    run(pool, process, "pid")
    pid = process.pid
    assert pid is not None
    process.close()
    assert not psutil.pid_exists(pid)


def test_a_flow_that_cannot_be_loaded_says_why(pool: Pool, process: WarmProcess):
    created = pool.create("no_such_flow")
    outcome = ended(process.run(Run(flow_run_id=created)))
    assert outcome.outcome == "refused"
    assert "no_such_flow" in outcome.problem


def test_a_relative_volume_stays_where_the_worker_was_started(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "data").symlink_to(pool.project.folder)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOLUME_ROOT", "data")
    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", "own models")
    reload_settings()
    elsewhere = str(tmp_path / "elsewhere")
    with closing(WarmProcess(DEVICE)) as other:
        for name in ("VOLUME_ROOT", "SAFELIGHT_MODELS_DIR"):
            created = pool.create("environment", name=name)
            ended(other.run(Run(flow_run_id=created, working_dir=elsewhere)))
    wanted = [tmp_path / "data", tmp_path / "own models"]
    assert pool.project.notes == [f"{path} {elsewhere}" for path in wanted]


def test_environment_is_restored(pool: Pool, process: WarmProcess):
    for environment in ({"COLOUR": "red"}, {}):
        created = pool.create("environment", name="COLOUR")
        ended(process.run(Run(flow_run_id=created, environment=environment)))
    assert [note.split()[0] for note in pool.project.notes] == ["red", "None"]


@pytest.mark.soak
def test_threads_sleep_while_they_wait_unless_told_otherwise(
    pool: Pool, process: WarmProcess, monkeypatch: pytest.MonkeyPatch
):
    run(pool, process, "environment", name="OMP_WAIT_POLICY")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    other = WarmProcess(DEVICE)
    run(pool, other, "environment", name="OMP_WAIT_POLICY")
    other.close()
    assert [note.split()[0] for note in pool.project.notes] == ["PASSIVE", "ACTIVE"]


def test_a_run_the_server_did_not_let_begin_is_not_left_running(pool: Pool):
    from prefect.exceptions import Abort
    from prefect.states import Completed, Running

    from safelight.pool.child import left_behind

    run = pool.create("pid")
    assert left_behind(pool.client.read_flow_run(run), Abort("scheduled again")) == ""
    pool.client.set_flow_run_state(run, Running(), force=True)
    assert "already made" in left_behind(
        pool.client.read_flow_run(run), Abort("already made this state transition")
    )
    pool.client.set_flow_run_state(run, Completed(), force=True)
    assert left_behind(pool.client.read_flow_run(run), Abort("done")) == ""


@pytest.mark.parametrize(
    "prompt", ["whole \N{ROLLER COASTER}", "half \ud83d"], ids=["whole", "half"]
)
def test_a_run_goes_with_its_command_where_it_can_be_written(prompt: str):
    shown = FlowRun(id=uuid4(), flow_id=uuid4(), parameters={"prompt": prompt})
    told = ToProcess.validate_json(_line(Run(flow_run_id=shown.id, flow_run=shown, asked=2.5)))
    assert isinstance(told, Run)
    assert (told.flow_run_id, told.asked) == (shown.id, 2.5)
    assert told.flow_run == (shown if prompt.startswith("whole") else None)
