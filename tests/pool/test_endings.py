"""However a run ended, it has a manifest and a page, also where its process could leave none."""

import json
import signal
from uuid import UUID

import anyio
import pytest
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.states import Running, State

from safelight.pool import orphans
from safelight.pool.ownership import released
from safelight.provenance.manifest import Manifest
from tests.prefect_pool import Pool, eventually


def manifest_of(pool: Pool, run: UUID) -> Manifest:
    kept = pool.project.folder / "volume" / "outputs" / "manifests" / f"{run}.json"
    return Manifest.model_validate_json(kept.read_bytes())


def page_of(pool: Pool, run: UUID) -> dict[str, str]:
    return {artifact.key: str(artifact.data) for artifact in pool.page(run) if artifact.key}


def say_the_same(pool: Pool, run: UUID, state: State) -> Manifest:
    """The manifest of a run whose state, page and manifest give one reason."""
    manifest = manifest_of(pool, run)
    assert manifest.error is not None
    assert not manifest.success
    assert manifest.error.problem in (state.message or "")
    assert manifest.error.code in page_of(pool, run)["result"]
    return manifest


@pytest.fixture
def picture(shared_pool: Pool) -> str:
    path = shared_pool.project.folder / "volume" / "uploads" / "ramp.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").convert("RGB").save(path)
    return str(path)


def test_a_killed_run_leaves_what_it_had_done(shared_pool: Pool, picture: str):
    run = shared_pool.create("looks", {"restarts": 0}, image=picture)
    state = shared_pool.end(run)
    assert state.is_crashed()
    manifest = say_the_same(shared_pool, run, state)
    assert manifest.flow == "looks"
    assert [(entry.name, entry.parameters["grain"]) for entry in manifest.stages] == [
        ("grade", 0.1),
        ("grade", 0.2),
    ]
    page = page_of(shared_pool, run)
    assert len(json.loads(page["manifest"])) == 2
    assert f"file-{manifest.shown[0].sha256[:12]}" in page


@pytest.mark.parametrize(
    ("flow", "parameters", "code"),
    [
        ("steps", {"count": "many"}, "INVALID_FIELD_VALUE"),
        ("steps", {"colour": 1}, "CONTRACT_MISMATCH"),
        ("no_such_flow", {"count": 1}, "UNKNOWN_ERROR"),
    ],
)
def test_a_refused_run_says_how_it_was_called(
    shared_pool: Pool, flow: str, parameters: dict[str, object], code: str
):
    run = shared_pool.create(flow, {"restarts": 0}, **parameters)
    state = shared_pool.end(run)
    assert not state.is_completed()
    manifest = say_the_same(shared_pool, run, state)
    assert manifest.flow == flow
    assert manifest.error is not None
    assert manifest.error.code == code
    assert manifest.parameters == parameters
    assert manifest.stages == ()


@pytest.mark.soak
def test_another_worker_leaves_it_where_worker_and_process_are_gone(pool: Pool):
    run = pool.create("pid")
    for _ in range(orphans.RESTARTS + 1):
        pool.client.set_flow_run_state(run, Running(), force=True)
        pool.client.update_flow_run(run, infrastructure_pid=released(1))

        async def see_to_it() -> None:
            async with get_client() as client:
                await orphans.take_over(client, pool.name, set(), orphans.Leases())

        anyio.run(see_to_it)
    state = pool.state(run)
    assert state.is_crashed()
    assert say_the_same(pool, run, state).flow == "pid"


@pytest.mark.soak
def test_a_worker_that_is_told_twice_ends_though_the_store_is_away(pool: Pool):
    """It was about to leave the manifest of a run whose process died."""
    worker = pool.start_worker(
        SAFELIGHT_STORE="s3://away",
        SAFELIGHT_S3_ENDPOINT_URL="http://127.0.0.1:1",
        SAFELIGHT_S3_ACCESS_KEY="x",
        SAFELIGHT_S3_SECRET_KEY="y",
    )
    pool.create("suicide", {"restarts": 0}, times=9)
    eventually(lambda: "did not answer" in pool.log())
    worker.send_signal(signal.SIGTERM)
    eventually(lambda: "taking no new runs" in pool.log())
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) in (0, 1)
