"""Finds runs whose worker and process are both gone, and has them go on."""

import socket
from datetime import UTC, datetime
from uuid import UUID

import psutil
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from safelight.pool.reporting import heed_cancellation, next_state, restarted, tell

OWNED = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
WORKER_LABEL = "prefect.worker.name"
RESTARTS = 3
"""Times a run is started again whose workers died, unless its job variables grant more; each has
done some of its stages."""
UNNAMED_SECONDS = 30.0
"""A run that waits this long for its process to be named was left by its worker on the way."""


async def take_over(client: PrefectClient, pool: str, worker: str, mine: set[UUID]) -> None:
    """Reschedule runs that nobody runs any more.

    A run is left alone while its process lives on this machine, or while the worker that has it
    is online elsewhere.

    Args:
        client: of the Prefect API.
        pool: name of the work pool.
        worker: name of the worker that asks.
        mine: runs that it runs itself or is about to start.
    """
    running = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(OWNED)))
        ),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
    )
    candidates = [run for run in running if run.id not in mine]
    if not candidates:
        return
    online = {
        found.name
        for found in await client.read_workers_for_work_pool(pool)
        if found.status == "ONLINE"
    }
    for run in candidates:
        if is_orphan(run, worker, online):
            restarts = max(RESTARTS, int((run.job_variables or {}).get("restarts") or 0))
            left = restarts - await restarted(client, run.id)
            now = await client.read_flow_run(run.id)
            if now.state_id != run.state_id:
                continue  # somebody saw to it meanwhile
            # a write the client repeats by itself later would undo what happened meanwhile
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                following = next_state(run, None, False, left)
                await tell(client, run, following)
                await client.set_flow_run_state(run.id, following, force=True)
                await heed_cancellation(client, run)


def is_orphan(run: FlowRun, worker: str, online: set[str]) -> bool:
    """Whether nobody runs this run.

    Args:
        run: Pending, Running or Cancelling.
        worker: name of the worker that asks and does not run it.
        online: names of the workers of the pool that the server hears of.
    """
    owner = run.labels.get(WORKER_LABEL)
    if not run.infrastructure_pid:
        if run.state is None or _age(run.state) < UNNAMED_SECONDS:
            return False
        return not run.state.is_running() or owner == worker or owner not in online
    host, _, pid = run.infrastructure_pid.partition(":")
    if host == socket.gethostname() and pid.isdigit():
        return not psutil.pid_exists(int(pid))
    return owner != worker and owner not in online


def _age(state: State) -> float:
    return (datetime.now(UTC) - state.timestamp).total_seconds()
