"""The whole system as infra/compose/compose.yaml describes it, on real PostgreSQL and Redis.

The workers ask for due runs once an hour: what starts earlier starts because they heard of it.
"""

from datetime import UTC, datetime
from io import BytesIO
from itertools import count
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pytest
from PIL import Image
from pydantic import SecretStr

from safelight.store.s3 import Bucket
from safelight.store.store import Store
from tests.infra.environments import CHECKOUT
from tests.system.whole import System, eventually

pytestmark = [pytest.mark.slow, pytest.mark.soak]
DAWDLE = """
    CREATE OR REPLACE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(1); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON flow_run
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dawdle();
"""
"""Makes a transaction with a new flow run take a second to end, after its event is out."""
PHOTO = CHECKOUT / "examples" / "astronaut.png"
SIDE = 128
ASKED_BETWEEN_ARRIVALS = 10


@pytest.fixture(scope="module")
def bucket(system: System, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store of the system, as somebody uses it who has its keys."""
    remote = Bucket(
        "safelight",
        "store",
        endpoint_url=system.s3.url,
        region="us-east-1",
        access_key=SecretStr(system.secrets["s3_access_key"]),
        secret_key=SecretStr(system.secrets["s3_secret_key"]),
        path_style=True,
    )
    return Store(remote, tmp_path_factory.mktemp("scratch"), 0, remote=True)


@pytest.fixture(scope="module")
def astronaut(bucket: Store) -> str:
    """Link of the photograph in the store, made small."""
    return upload(bucket, resized(SIDE))


def upload(bucket: Store, picture: Path | bytes) -> str:
    ref = bucket.put(picture, "image/png", folder="uploads")
    bucket.settle()
    return ref.uri


def resized(side: int) -> bytes:
    """The photograph with less or more to compute, tile by tile."""
    out = BytesIO()
    Image.open(PHOTO).resize((side, side)).save(out, "PNG")
    return out.getvalue()


def result(system: System, run: str) -> Image.Image:
    """The picture behind the link on a run's page."""
    (link,) = [one for one in system.artifacts(run) if (one["key"] or "").startswith("file-")]
    address = link["data"].partition("](")[2].rstrip(")")
    assert address.startswith(system.s3.url)
    return Image.open(BytesIO(httpx.get(address).raise_for_status().content))


def by(run: dict) -> str | None:
    return (run["created_by"] or {}).get("id")


def test_without_the_password_nothing_is_told(system: System):
    name, _, password = system.secrets["prefect_auth"].partition(":")
    for auth in (f"{name}:{password}x", f"{name}:", f"x:{password}"):
        with system.client("server", auth) as stranger:
            assert stranger.post("/flow_runs/filter", json={}).status_code == 401
            assert stranger.post("/deployments/filter", json={}).status_code == 401
    assert system.post("/deployments/filter")


def test_a_run_asked_for_over_http_leaves_its_picture_in_the_bucket(system: System, astronaut: str):
    run = system.start("enhance", image=astronaut, quality_preset="low")
    ended = system.end(run)
    assert ended["state_type"] == "COMPLETED", ended["state"]
    picture = result(system, run)
    assert (picture.format, picture.size) == ("PNG", (2 * SIDE, 2 * SIDE))
    back = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=float)
    before = np.asarray(Image.open(BytesIO(resized(SIDE))).convert("RGB"), dtype=float)
    assert np.abs(back - before).mean() < 8


def test_two_workers_compute_at_once_and_stop_when_told(system: System, bucket: Store):
    image = upload(bucket, resized(2048))
    runs = [system.start("enhance", image=image, quality_preset="low") for _ in range(2)]
    eventually(lambda: all(system.computes(run) for run in runs))

    def owners() -> list[str | None]:
        return [system.read(run)["labels"].get("prefect.worker.name") for run in runs]

    eventually(lambda: all(owners()))  # a run is labelled a moment after its start
    assert len(set(owners())) == 2
    for run in runs:
        system.cancel(run)
    assert {system.end(run)["state"]["name"] for run in runs} == {"Cancelled"}


def test_an_event_makes_an_automation_start_a_run(system: System, astronaut: str):
    automation = system.post(
        "/automations/",
        name="enhance what arrives",
        trigger={
            "type": "event",
            "posture": "Reactive",
            "expect": ["photo.arrived"],
            "match": {"prefect.resource.id": "camera.*"},
            "threshold": 1,
            "within": 0,
        },
        actions=[
            {
                "type": "run-deployment",
                "source": "selected",
                "deployment_id": system.deployment("enhance"),
                "parameters": {"image": astronaut, "quality_preset": "low"},
            }
        ],
    )

    def arrive() -> None:
        arrived = {
            "id": str(uuid4()),
            "occurred": datetime.now(UTC).isoformat(),
            "event": "photo.arrived",
            "resource": {"prefect.resource.id": "camera.1"},
        }
        told = system.http.post("/events", json=[arrived])
        assert told.is_success, told.text

    def started() -> list[str]:
        if next(asked) % ASKED_BETWEEN_ARRIVALS == 0:
            arrive()  # again: the service may hear late of the automation
        found = system.post("/flow_runs/filter")
        return [run["id"] for run in found if by(run) == automation["id"]]

    asked = count()
    run, *_ = eventually(started)
    ended = system.end(run)
    assert ended["state_type"] == "COMPLETED", ended["state"]
    assert result(system, run).size == (2 * SIDE, 2 * SIDE)


def test_what_one_server_is_asked_the_workers_of_another_hear(system: System, astronaut: str):
    with system.client("server-2") as other:
        run = system.start("enhance", other, image=astronaut, quality_preset="low")
    assert system.end(run)["state_type"] == "COMPLETED"


def test_workers_hear_of_a_run_before_the_database_has_it(system: System, astronaut: str):
    system.sql(DAWDLE)
    try:
        run = system.start("enhance", image=astronaut, quality_preset="low")
    finally:
        system.sql("DROP TRIGGER dawdle ON flow_run")
    assert system.end(run)["state_type"] == "COMPLETED"


def test_a_run_outlives_the_server(system: System, bucket: Store, astronaut: str):
    run = system.start("enhance", image=upload(bucket, resized(1024)), quality_preset="low")
    eventually(lambda: system.computes(run))
    system.services.kill("server")
    killed = datetime.now(UTC)
    system.services.start_server()
    system.services.wait_for_server()
    ended = system.end(run)
    assert ended["state_type"] == "COMPLETED", ended["state"]
    assert datetime.fromisoformat(ended["end_time"]) > killed
    assert result(system, run).size == (2048, 2048)
    # and the workers listen again
    later = system.start("enhance", image=astronaut, quality_preset="low")
    assert system.end(later)["state_type"] == "COMPLETED"


def test_a_schedule_that_is_switched_on_makes_runs_that_complete(system: System, astronaut: str):
    # Prefect sends no event for what its scheduler plans: a worker that asks finds it
    system.services.start_worker("worker-3", asks_seconds=2)
    deployment = system.deployment("enhance")
    schedule = {
        "schedule": {"interval": 20, "anchor_date": datetime.now(UTC).isoformat()},
        "active": True,
        "parameters": {"image": astronaut, "quality_preset": "low"},
    }
    (made,) = system.http.post(f"/deployments/{deployment}/schedules", json=[schedule]).json()

    def completed() -> list[dict]:
        found = system.post(
            "/flow_runs/filter",
            deployments={"id": {"any_": [deployment]}},
            flow_runs={"state": {"type": {"any_": ["COMPLETED"]}}},
        )
        return [run for run in found if run["auto_scheduled"]]

    try:
        run, *_ = eventually(completed)
    finally:
        system.http.delete(f"/deployments/{deployment}/schedules/{made['id']}")
        system.services.kill("worker-3")
    assert result(system, run["id"]).size == (2 * SIDE, 2 * SIDE)
