"""The doctor on a real server: every trouble is found and comes with what to do."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import prefect
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Crashed, Running

from safelight.cli import health, server_health
from safelight.cli.findings import Finding
from safelight.cli.pools import make_batches_pool
from safelight.cli.server import embedded_server, free_port, prefect_home
from safelight.pool.announcing import Announcement, announced
from safelight.provenance.surroundings import versions
from safelight.settings import reload_settings
from safelight.store.results import RESULTS, register_results
from safelight.store.store import current_store
from tests.prefect_database import put_database
from tests.prefect_pool import Pool, eventually


def found(about: str) -> Finding:
    """The one finding about a thing; every finding that is not ok says what to do."""
    every = list(server_health.server_findings())
    for one in every:
        assert bool(one.remedy) == (one.level != "ok"), one
    (wanted,) = [one for one in every if one.what == about]
    return wanted


@pytest.fixture(scope="module", autouse=True)
def _bare(prefect_server: str) -> None:
    """Deployments that tests of other files left on the server are gone."""
    with (
        temporary_settings({PREFECT_API_URL: prefect_server}),
        get_client(sync_client=True) as client,
    ):
        for left in client.read_deployments():
            client.request("DELETE", "/deployments/{id}", path_params={"id": left.id})


@pytest.fixture
def deployed(api: SyncPrefectClient, pool: Pool) -> Iterator[Pool]:
    """A deployment of ours on the pool of the test; none of other tests."""
    flow_id = api.create_flow_from_name("enhance")
    deployment = api.create_deployment(
        flow_id,
        name=f"enhance-{pool.name}",
        entrypoint="flows.enhance.enhance",
        work_pool_name=pool.name,
    )
    yield pool
    api.request("DELETE", "/deployments/{id}", path_params={"id": deployment})


@pytest.mark.soak
def test_no_server_is_no_trouble(volume: Path):
    with temporary_settings({PREFECT_API_URL: None}):
        assert found("prefect server").level == "ok"


def test_a_server_that_is_gone():
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert found("prefect server").level == "problem"


@pytest.mark.soak
def test_whether_the_server_asks_for_a_password(
    api: SyncPrefectClient, volume: Path, database: Path
):
    put_database(database, volume)
    told = found("server password")
    assert told.level == "ok"
    assert "run code" in told.found
    with (
        unguarded(volume) as url,
        temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: None}),
    ):
        told = found("server password")
    assert told.level == "warning"
    assert "PREFECT_SERVER_API_AUTH_STRING" in told.remedy


@contextmanager
def unguarded(volume: Path) -> Generator[str]:
    """A server whose operator wants no password."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAFELIGHT_SERVER_AUTH", "none")
        reload_settings()
        with embedded_server(free_port(), ui=False) as url:
            yield url
    reload_settings()
    assert not (prefect_home(volume) / "passwords").exists()


def test_a_server_without_anything_of_ours(api: SyncPrefectClient):
    assert found("prefect server").found.endswith(f"version {prefect.__version__}")
    assert found("deployments").remedy == "run: safelight deploy"
    assert found("work pool gpu").remedy == "run: safelight deploy --pool gpu"


@pytest.mark.parametrize(("theirs", "level"), [("3.8.7", "problem"), ("99.0.0", "warning")])
def test_versions_of_server_and_command_differ(
    api: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch, theirs: str, level: str
):
    installed = prefect.__version__
    monkeypatch.setattr(type(api), "api_version", lambda self: theirs)
    told = found("prefect server")
    assert told.level == level
    assert theirs in told.found
    assert (installed if level == "problem" else theirs) in told.remedy


def test_a_result_block_that_is_not_there(api: SyncPrefectClient):
    kind, name = RESULTS.split("/", 1)
    block = api.read_block_document_by_name(name, block_type_slug=kind)
    api.request("DELETE", "/block_documents/{id}", path_params={"id": block.id})
    assert found("result block").remedy == "run: safelight deploy"
    register_results()
    assert found("result block").level == "ok"


def test_a_pool_that_is_paused_or_gone(api: SyncPrefectClient, deployed: Pool):
    about = f"work pool {deployed.name}"
    assert found(about).level == "ok"
    api.update_work_pool(deployed.name, WorkPoolUpdate(is_paused=True))
    assert found(about).remedy == f"run: prefect work-pool resume {deployed.name}"
    api.delete_work_pool(deployed.name)
    assert "1 of them without a work pool" in found("deployments").found


def test_a_pool_of_the_stock_type_works_but_is_cold(api: SyncPrefectClient, project: object):
    name = f"stock-{uuid4().hex[:8]}"
    api.create_work_pool(WorkPoolCreate(name=name, type="process"))
    flow_id = api.create_flow_from_name("enhance")
    deployment = api.create_deployment(
        flow_id, name=name, entrypoint="flows.enhance.enhance", work_pool_name=name
    )
    assert found(f"work pool {name}").level == "warning"
    assert found(f"workers of {name}").level == "problem"
    api.request("DELETE", "/deployments/{id}", path_params={"id": deployment})


def test_a_pool_of_batches_with_another_type_is_a_problem(api: SyncPrefectClient):
    with suppress(ObjectNotFound):
        api.delete_work_pool("batches")
    api.create_work_pool(WorkPoolCreate(name="batches", type="process"))
    deployment = api.create_deployment(
        api.create_flow_from_name("batch"),
        name="batch",
        entrypoint="flows.batch.batch",
        work_pool_name="batches",
    )
    told = found("work pool batches")
    assert (told.level, told.remedy) == ("problem", "run: safelight deploy")
    make_batches_pool()
    api.update_deployment(deployment, DeploymentUpdate(work_pool_name="batches"))
    assert found("work pool batches").level == "ok"
    api.request("DELETE", "/deployments/{id}", path_params={"id": deployment})


@pytest.mark.slow
def test_workers_are_online_with_versions_like_ours(
    api: SyncPrefectClient, deployed: Pool, monkeypatch: pytest.MonkeyPatch
):
    missing = found(f"workers of {deployed.name}")
    assert missing.remedy == f"run: prefect worker start --pool {deployed.name}"
    deployed.start_worker("one")
    told = eventually(lambda: announced(api, deployed.name, ["one"]))["one"]
    assert told == Announcement(versions=versions(), devices=told.devices)
    assert list(told.devices) == ["cpu:0"]
    assert found("worker one").level == "ok"
    changed = versions() | {"diffusers": "0.1.0"}
    monkeypatch.setattr(server_health, "versions", lambda: changed)
    differs = found("worker one")
    assert differs.level == "warning"
    assert f"diffusers {versions()['diffusers']} instead of 0.1.0" in differs.found


def test_recent_crashes_are_named(api: SyncPrefectClient, deployed: Pool):
    run = deployed.create("pid")
    api.set_flow_run_state(run, Running(), force=True)
    api.set_flow_run_state(run, Crashed(message="[OUT_OF_MEMORY] gone"), force=True)
    assert api.read_flow_run(run).state_type is StateType.CRASHED
    told = found("crashed runs")
    assert told.level == "warning"
    assert "[OUT_OF_MEMORY] gone" in told.found
    assert str(run) in told.remedy


def of_machine(about: str) -> Finding:
    (wanted,) = [one for one in health.examine() if one.what == about]
    return wanted


def test_devices_and_store_of_this_machine(volume: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAFELIGHT_POOL_DEVICES", "cpu:2")
    reload_settings()
    with temporary_settings({PREFECT_API_URL: None}):
        assert "cpu:0" in of_machine("devices of a worker here").found
        assert of_machine("store").level == "ok"
    assert not (volume / "cache" / "doctor").exists()


def test_a_device_that_is_not_there(volume: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAFELIGHT_POOL_DEVICES", "cuda:31")
    reload_settings()
    with temporary_settings({PREFECT_API_URL: None}):
        told = of_machine("pool devices")
    assert told.level == "problem"
    assert "SAFELIGHT_POOL_DEVICES" in told.remedy


def test_a_bucket_that_does_not_answer(volume: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAFELIGHT_STORE", "s3://bucket")
    monkeypatch.setenv("SAFELIGHT_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SAFELIGHT_S3_ACCESS_KEY", "a")
    monkeypatch.setenv("SAFELIGHT_S3_SECRET_KEY", "b")
    reload_settings()
    current_store.cache_clear()
    (told,) = list(health.findings_of(health.check_store))
    assert told.level == "problem"
    assert "SAFELIGHT_S3_ENDPOINT_URL" in told.remedy
