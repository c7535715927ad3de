"""What Safelight uses of Prefect that Prefect does not promise."""

import ast
import inspect
import re
from pathlib import Path

import anyio
import httpx
import pytest
from prefect.client.orchestration import PrefectClient, SyncPrefectClient, get_client
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.exceptions import Abort
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.workers.base import BaseJobConfiguration, BaseWorker

from safelight.pool import prefect_internals
from safelight.pool.configuration import PoolJobConfiguration, RunConfiguration
from safelight.pool.supervising import SupervisingWorker
from safelight.pool.worker import BatchWorker, SafelightWorker
from tests.prefect_pool import Pool, eventually

NAMED = re.findall(r"`(\w+)\.(_\w+)", prefect_internals.__doc__ or "")
BASES = {
    "BaseWorker": BaseWorker,
    "BaseJobConfiguration": BaseJobConfiguration,
    "SyncPrefectClient": SyncPrefectClient,
    "PrefectClient": PrefectClient,
}


def test_every_private_name_in_use_is_listed():
    tree = ast.parse(Path(prefect_internals.__file__).read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_")
    }
    replaced = {
        name
        for own in (SupervisingWorker, SafelightWorker, BatchWorker, RunConfiguration)
        for name, value in vars(own).items()
        if name.startswith("_") and not name.startswith("__")
        if inspect.isfunction(getattr(value, "__func__", value))
        if any(hasattr(base, name) for base in BASES.values())
    }
    assert used | replaced == {name for _, name in NAMED}


@pytest.mark.parametrize(("base", "name"), NAMED)
def test_prefect_still_has_it(base: str, name: str):
    assert name in inspect.getsource(BASES[base])


def test_signatures_are_as_we_call_them():
    assert list(inspect.signature(BaseWorker._get_scheduled_flow_runs).parameters) == ["self"]
    submit = inspect.signature(BaseWorker._submit_scheduled_flow_runs)
    assert list(submit.parameters) == ["self", "flow_run_response"]
    assert inspect.iscoroutinefunction(BaseWorker._submit_scheduled_flow_runs)


@pytest.mark.usefixtures("api", "project")
def test_limit_due_runs_and_task_group_on_a_real_server(pool: Pool):
    run = pool.create("pid")
    seen: list[list[WorkerFlowRunResponse]] = []
    beside: list[str] = []

    async def look() -> None:
        worker = SafelightWorker(work_pool_name=pool.name, limit=7)
        assert worker._limit == 1  # one device
        async with worker:
            before = worker._last_polled_time
            seen.append(await prefect_internals.due_flow_runs(worker))
            assert worker._last_polled_time > before
            assert prefect_internals.in_progress(worker) <= {run}  # it may be quick to take it

            async def work() -> None:
                beside.append("ran")

            prefect_internals.start_soon(worker, work)
            await anyio.sleep(0.1)

    anyio.run(look)
    assert beside == ["ran"]
    assert run in [entry.flow_run.id for entry in seen[0]] or pool.end(run)


def test_a_guard_keeps_requests_of_both_clients_back(pool: Pool):
    def guard(request: httpx.Request) -> None:
        if request.url.path.endswith("/hello"):  # a POST may ask for a CSRF token first, by GET
            raise Abort(request.url.path)

    async def ask() -> None:
        with get_client(sync_client=True) as client:
            async with get_client() as beside:
                prefect_internals.before_requests(client, beside, guard)
                client.read_work_pools()  # a POST
                with pytest.raises(Abort):
                    client.hello()
                with pytest.raises(Abort):
                    await beside.hello()

    anyio.run(ask)


@pytest.mark.usefixtures("api", "project")
def test_a_deployment_that_is_known_is_not_asked_for_again(pool: Pool):
    asked: list[str] = []

    async def hear(request: httpx.Request) -> None:
        if "/deployments/" in request.url.path:
            asked.append(request.url.path)

    async def look() -> None:
        known = pool.deploy("pid")
        other = pool.deploy("steps")
        assert known != other
        async with SafelightWorker(work_pool_name=pool.name) as worker:
            prefect_internals.before_requests_of(worker, hear)
            deployment = await worker.client.read_deployment(known)
            prefect_internals.answer_known(worker, lambda: deployment)
            asked.clear()
            assert await worker.client.read_deployment(known) is deployment
            assert not asked
            assert (await worker.client.read_deployment(other)).id == other
            assert asked == [f"/api/deployments/{other}"]

    anyio.run(look)


def test_the_settings_of_a_run_are_prefects_own():
    seen = set[str | None]()
    for retries in (3, 4, 4):
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: retries}):
            remembered = PoolJobConfiguration._base_environment()
            assert remembered == BaseJobConfiguration._base_environment()
            seen.add(remembered.pop("PREFECT_CLIENT_MAX_RETRIES"))
    assert seen == {"3", "4"}


def test_a_run_is_labelled_and_skips_the_state_of_being_submitted(pool: Pool):
    pool.start_worker()
    run = pool.create("pid")
    assert pool.end(run).is_completed()
    states = [state.name for state in pool.client.read_flow_run_states(run)]
    assert states == ["Scheduled", "Pending", "Running", "Completed"]
    eventually(
        lambda: pool.client.read_flow_run(run).labels.get("prefect.work-pool.name") == pool.name
    )
