"""Every private part of Prefect that Safelight uses; each has a test, so an upgrade shows at once.

- `BaseWorker._get_scheduled_flow_runs()`: the runs of the pool that are due, by queue priority.
- `BaseWorker._submit_scheduled_flow_runs(flow_run_response)`: takes runs up to the limit.
- `BaseWorker._submit_run(flow_run)`: starts one of them; the worker's own stands in its place.
- `BaseWorker._release_limit_slot(flow_run_id)`: gives back the place of a run that did not start.
- `BaseWorker._give_worker_labels_to_flow_run(flow_run_id)`: a request before each run; the
  worker's own, in its place, leaves it for later.
- `BaseWorker._propose_submitting_state(flow_run)`: another; the worker's own leaves it out.
- `BaseWorker._submitting_flow_run_ids`: runs that were taken and have not started yet.
- `BaseWorker._has_successfully_synced`: whether the pool is known yet.
- `BaseWorker._runs_task_group`: the task group that a worker waits for when it ends.
- `BaseWorker._last_polled_time`: what the health check looks at.
- `BaseWorker._limit`: the most runs at a time, read when the worker is set up.
- `BaseJobConfiguration._base_environment()`: the worker's settings as environment; the
  configuration's own, in its place, remembers them.
- `SyncPrefectClient._client` and
- `PrefectClient._client`: the clients of httpx, whose hooks are called before each request and
  after each answer, repeated ones too.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from anyio.abc import TaskGroup
from prefect.client.orchestration import PrefectClient, SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse, WorkerFlowRunResponse
from prefect.workers.base import BaseWorker

# pyright: reportPrivateUsage=false
AnyWorker = BaseWorker[Any, Any, Any]


def limit_runs(worker: AnyWorker, most: int) -> None:
    """Let a worker that is not set up yet take no more than `most` runs at a time."""
    worker._limit = most if worker._limit is None else min(worker._limit, most)


async def due_flow_runs(worker: AnyWorker) -> list[WorkerFlowRunResponse]:
    """Ask the server for runs of the pool that are due or soon will be; none before it is known."""
    worker._last_polled_time = datetime.now(UTC)
    if not worker._has_successfully_synced:
        return []
    return await worker._get_scheduled_flow_runs()


async def submit(worker: AnyWorker, runs: list[WorkerFlowRunResponse]) -> None:
    """Start as many of these runs as the limit allows."""
    await worker._submit_scheduled_flow_runs(runs)


async def submit_one(worker: AnyWorker, flow_run: FlowRun) -> None:
    """Start a run that was taken; returns when it has begun."""
    await BaseWorker[Any, Any, Any]._submit_run(worker, flow_run)


async def label(worker: AnyWorker, run_id: UUID) -> None:
    """Note on a run which worker and pool it went to."""
    await BaseWorker[Any, Any, Any]._give_worker_labels_to_flow_run(worker, run_id)


def let_go(worker: AnyWorker, run_id: UUID) -> None:
    """Forget a run that was taken and could not be started."""
    worker._submitting_flow_run_ids.discard(run_id)
    worker._release_limit_slot(run_id)


def start_soon(worker: AnyWorker, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run something beside the flow runs; it must end before the worker does."""
    group: TaskGroup | None = worker._runs_task_group
    if group is not None:
        group.start_soon(work)


def in_progress(worker: AnyWorker) -> set[Any]:
    """Ids of flow runs that this worker is about to start."""
    return set(worker._submitting_flow_run_ids)


def before_requests(
    client: SyncPrefectClient, beside: PrefectClient, guard: Callable[[httpx.Request], None]
) -> None:
    """Have `guard` called before each request; what it raises keeps the request back."""

    async def guard_beside(request: httpx.Request) -> None:
        guard(request)

    client._client.event_hooks["request"].append(guard)
    beside._client.event_hooks["request"].append(guard_beside)


def after_answers(client: SyncPrefectClient, hear: Callable[[httpx.Response], None]) -> None:
    """Have `hear` called with each answer, before Prefect reads it."""
    client._client.event_hooks["response"].append(hear)


def before_requests_of(
    worker: AnyWorker, guard: Callable[[httpx.Request], Coroutine[Any, Any, None]]
) -> None:
    """The same for a worker that is set up."""
    worker.client._client.event_hooks["request"].append(guard)


def answer_known(worker: AnyWorker, known: Callable[[], DeploymentResponse | None]) -> None:
    """Spare a worker that is set up the question for a deployment that was read a moment ago.

    Args:
        worker: asks before it starts a run whether the run's deployment is still there.
        known: the deployment that whoever asks has read already.
    """
    ask = worker.client.read_deployment

    async def read(deployment_id: UUID | str) -> DeploymentResponse:
        found = known()
        if found is not None and str(found.id) == str(deployment_id):
            return found
        return await ask(deployment_id)

    worker.client.read_deployment = read


def current_task() -> "asyncio.Task[Any]":
    """The task this is called from."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("not called from a task")
    return task
