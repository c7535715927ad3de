"""Every background service of the server does its work; the doctor says which of them does not."""

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from prefect import flow, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import StateType, Worker
from prefect.client.schemas.schedules import CronSchedule, RRuleSchedule
from prefect.events import Event, Resource
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Completed, Running, Scheduled

from safelight.cli import schedule_health, service_health
from safelight.cli.findings import Finding
from safelight.cli.server import embedded_server, free_port
from safelight.cli.server_health import server_findings
from safelight.client.paging import every_deployment, every_worker
from safelight.settings import reload_settings
from tests.prefect_database import put_database
from tests.prefect_pool import eventually, let_go_of_server

NOW = datetime.now(UTC)
POOL = "cold"
OURS = "flows.generate.generate"


@contextmanager
def server(volume: Path, *, services: bool) -> Generator[SyncPrefectClient]:
    """An embedded server on a volume, with or without its background services."""
    before = dict(os.environ)
    os.environ |= {"VOLUME_ROOT": str(volume)}
    if not services:
        os.environ["PREFECT__SERVER_WEBSERVER_ONLY"] = "1"
    reload_settings()
    try:
        with (
            embedded_server(free_port(), ui=False) as url,
            temporary_settings({PREFECT_API_URL: url}),
            get_client(sync_client=True) as client,
        ):
            try:
                yield client
            finally:
                let_go_of_server()
    finally:
        os.environ.clear()
        os.environ.update(before)
        reload_settings()


def deployed(client: SyncPrefectClient, name: str, *schedules: DeploymentScheduleCreate) -> UUID:
    return client.create_deployment(
        client.create_flow_from_name(name),
        name=name,
        entrypoint=f"flows.{name}.{name}",
        work_pool_name=POOL,
        schedules=list(schedules),
        parameters={"prompt": "a red heart"} if name == "generate" else {},
    )


def beat(client: SyncPrefectClient) -> None:
    client.request(
        "POST",
        "/work_pools/{work_pool_name}/workers/heartbeat",
        path_params={"work_pool_name": POOL},
        json={"name": "asleep", "heartbeat_interval_seconds": 1},
    )


def troubles() -> dict[str, Finding]:
    """What the doctor finds wrong with schedules and services."""
    about = ("schedule ", "schedules", "service", "deployment ")
    return {one.what: one for one in server_findings() if one.what.startswith(about)}


@pytest.mark.soak
def test_what_no_service_does_is_said_and_done_by_the_next_server_that_has_them(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
):
    for module in (service_health, schedule_health):
        monkeypatch.setattr(module, "LOOPS", 0)
    monkeypatch.setattr(service_health, "SLACK", timedelta(0))
    put_database(database, tmp_path)
    daily = DeploymentScheduleCreate(schedule=CronSchedule(cron="7 3 * * *"), slug="daily")
    with server(tmp_path, services=False) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        generate = deployed(client, "generate", daily)
        long_ago = client.create_flow_run_from_deployment(
            generate, state=Scheduled(scheduled_time=NOW - timedelta(hours=3))
        )
        parent = client.create_flow_run(done, state=Running())
        started = client.create_task_run(
            below, flow_run_id=parent.id, dynamic_key="0", state=Running()
        )
        child = client.create_flow_run(done, parent_task_run_id=started.id, state=Running())
        client.set_flow_run_state(parent.id, Cancelled(timestamp=NOW - timedelta(minutes=20)))
        whole = client.create_flow_run_from_deployment(generate, state=Running())
        client.set_flow_run_state(
            whole.id, Completed(timestamp=NOW - timedelta(minutes=10)), force=True
        )
        beat(client)
        found = troubles()
        assert "is not planned" in found["schedule daily of generate"].found
        assert long_ago.name in found["service of late runs"].found
        assert child.name in found["service of cancelled children"].found
        assert whole.name in found["service of events"].found
        assert whole.name in found["service of task runs"].found
        assert {one.level for one in found.values()} == {"problem"}
        (worker,) = every_worker(client, POOL)
        assert worker.status == "ONLINE"

    with server(tmp_path, services=True) as client:
        # automations: what an event is to cause happens
        pool_id = client.read_work_pool(POOL).id
        client.request("POST", "/automations/", json=pausing(pool_id))
        eventually(lambda: client.read_flow_run(long_ago.id).state_name == "Late")
        eventually(lambda: client.read_flow_run(child.id).state_type is StateType.CANCELLED)
        eventually(lambda: not [w for w in every_worker(client, POOL) if w.status == "ONLINE"])
        eventually(lambda: tell(client) or client.read_work_pool(POOL).is_paused)
        run = done(return_state=True).state_details.flow_run_id
        assert run is not None
        eventually(
            lambda: [
                one
                for one in client.read_task_runs()
                if one.flow_run_id == run and one.state_type is StateType.COMPLETED
            ]
        )
        client.delete_flow_run(whole.id)  # of it nothing comes any more
        eventually(lambda: {one.level for one in troubles().values()} == {"ok"})


def tell(client: SyncPrefectClient) -> None:
    """One event; automations that were just made may not have been looked at yet."""
    resource = Resource({"prefect.resource.id": "safelight.test"})
    told = Event(event="safelight.test", resource=resource)
    client.request("POST", "/events", json=[told.model_dump(mode="json")])


@task
def below() -> int:
    """Nothing but a task."""
    return 1


@flow
def done() -> int:
    """One task."""
    return below()


def pausing(pool: UUID) -> dict[str, object]:
    """An automation that pauses a work pool when an event is told."""
    return {
        "name": f"pausing-{uuid4().hex[:6]}",
        "trigger": {
            "type": "event",
            "posture": "Reactive",
            "expect": ["safelight.test"],
            "threshold": 1,
            "within": 0,
        },
        "actions": [{"type": "pause-work-pool", "source": "selected", "work_pool_id": str(pool)}],
    }


@pytest.fixture(scope="module")
def well(
    prefect_server: str, tmp_path_factory: pytest.TempPathFactory, database: Path
) -> Iterator[SyncPrefectClient]:
    """A client of a server that ends before the one of all tests does, as its password must."""
    del prefect_server
    volume = tmp_path_factory.mktemp("well")
    put_database(database, volume)
    with server(volume, services=False) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        yield client
        for deployment in every_deployment(client):
            client.request("DELETE", "/deployments/{id}", path_params={"id": deployment.id})


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"steps": -3}, "steps"),
        ({"promt": "a cat"}, "promt"),
        ({"size": "999999x2"}, "size"),
    ],
)
def test_a_schedule_whose_parameters_are_refused_is_named(
    well: SyncPrefectClient, parameters: dict[str, object], said: str
):
    schedule = DeploymentScheduleCreate(
        schedule=CronSchedule(cron="0 0 * * *"), slug="bad", parameters=parameters, active=False
    )
    deployed(well, "generate", schedule)
    told = troubles()["schedule bad of generate"]
    assert told.level == "warning"
    assert said in told.found
    assert told.remedy


def test_schedules_that_can_make_no_run_are_named(well: SyncPrefectClient):
    over = RRuleSchedule(rrule="DTSTART:20200101T000000Z\nRRULE:FREQ=DAILY;COUNT=3")
    deployed(well, "generate", DeploymentScheduleCreate(schedule=over, slug="over"))
    assert "no moment ahead" in troubles()["schedule over of generate"].found
    cron = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 0 * * *"), slug="held")
    paused = deployed(well, "generate", cron)
    well.pause_deployment(paused)
    assert "is paused" in troubles()["schedule held of generate"].found


def test_a_deployment_whose_flow_is_not_here_is_named(well: SyncPrefectClient):
    deployed(well, "renamed_long_ago")
    told = troubles()["deployment renamed_long_ago"]
    assert "flows.renamed_long_ago.renamed_long_ago" in told.found
    assert "prefect deployment delete renamed_long_ago/renamed_long_ago" in told.remedy


def test_a_worker_that_is_silent_and_called_online_is_said():
    service = service_health.Service(loop_seconds=1)
    silent = Worker(
        name="asleep",
        work_pool_id=uuid4(),
        status="ONLINE",  # pyright: ignore[reportArgumentType]
        last_heartbeat_time=NOW - timedelta(hours=1),  # pyright: ignore[reportArgumentType]
    )
    fresh = silent.model_copy(update={"last_heartbeat_time": datetime.now(UTC)})
    assert service_health.silent_worker([fresh], service) is None
    assert "asleep" in (service_health.silent_worker([fresh, silent], service) or "")
