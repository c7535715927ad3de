"""What Safelight uses of Prefect that Prefect does not promise."""

import ast
import inspect
import re
from pathlib import Path

import anyio
import pytest
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.workers.base import BaseWorker

from safelight.pool import prefect_internals
from safelight.pool.worker import SafelightWorker
from tests.prefect_pool import Pool

NAMED = re.findall(r"`BaseWorker\.(\w+)", prefect_internals.__doc__ or "")


def test_every_private_name_in_use_is_listed():
    tree = ast.parse(Path(prefect_internals.__file__).read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_")
    }
    assert used == set(NAMED)


@pytest.mark.parametrize("name", NAMED)
def test_prefect_still_has_it(name: str):
    assert name in inspect.getsource(BaseWorker)


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
            assert prefect_internals.in_progress(worker) == set()

            async def work() -> None:
                beside.append("ran")

            prefect_internals.start_soon(worker, work)
            await anyio.sleep(0.1)

    anyio.run(look)
    assert beside == ["ran"]
    assert run in [entry.flow_run.id for entry in seen[0]] or pool.end(run)
