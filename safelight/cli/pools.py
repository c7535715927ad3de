"""The work pools of Safelight: made where there are none, and given their type where it is another.

Prefect's API cannot change the type of a pool. A pool that is deleted and made again loses the runs
that wait in it, and what is over cannot be retried: its runs name a queue that is gone.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import TERMINAL_STATES, StateType, WorkPool
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from safelight.children import start_child
from safelight.cli.printing import CONSOLE
from safelight.cli.server import QUIET, prefect_home
from safelight.client.asking import patient_client
from safelight.client.paging import every_deployment, every_worker, pages
from safelight.errors import ContractMismatchError, UnknownError
from safelight.pool.configuration import BATCH_TYPE
from safelight.settings import settings

BATCHES = "batches"
"""Pool whose runs wait for runs in the other pool, whose places they must not take."""
RETYPE = "safelight.cli.pool_type"
"""Module that changes the type of a pool in the database."""
NAMED = 3
"""Things that a refusal names of each kind."""
Change = Callable[[str, str], None]
"""Gives the pool of this name this type."""


def make_pool(pool: str, pool_type: str) -> None:
    """Create a work pool of this type unless there is one of that name."""
    with patient_client() as client:
        _made(client, pool, pool_type)


def make_batches_pool(change: Change | None = None) -> None:
    """See to it that there is the pool for batches, and that it has their type.

    Args:
        change: changes the type of a pool in place, where that is possible.

    Raises:
        ContractMismatchError: it has another type, and something would be lost with it.
    """
    with patient_client() as client:
        found = _made(client, BATCHES, BATCH_TYPE)
        if found.type == BATCH_TYPE:
            return
        if change is not None:
            change(BATCHES, BATCH_TYPE)
        else:
            _refuse_loss(client, found)
            client.delete_work_pool(BATCHES)
            _made(client, BATCHES, BATCH_TYPE)
        CONSOLE.print(f"work pool {BATCHES}: type {found.type} is now {BATCH_TYPE}")


def _made(client: SyncPrefectClient, pool: str, pool_type: str) -> WorkPool:
    with suppress(ObjectNotFound):
        return client.read_work_pool(pool)
    with suppress(ObjectAlreadyExists):  # made, and the answer was lost
        client.create_work_pool(WorkPoolCreate(name=pool, type=pool_type))
    return client.read_work_pool(pool)


def _refuse_loss(client: SyncPrefectClient, pool: WorkPool) -> None:
    mine = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool.name]))
    open_states = [state for state in StateType if state not in TERMINAL_STATES]
    unfinished = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=open_states))
    )
    runs = [
        run.name
        for run in pages(
            lambda offset: client.read_flow_runs(
                flow_run_filter=unfinished, work_pool_filter=mine, offset=offset
            )
        )
        if not run.auto_scheduled  # made anew with the deployment
    ]
    others = [
        deployment.name
        for deployment in every_deployment(client, pool.name)
        if deployment.name != "batch"
    ]
    queues = [
        queue.name
        for queue in client.read_work_queues(work_pool_name=pool.name)
        if queue.name != "default"
    ]
    online = [w.name for w in every_worker(client, pool.name) if w.status == "ONLINE"]
    kinds = {"runs": runs, "deployments": others, "queues": queues, "workers online": online}
    lost = "; ".join(f"{kind} {_listed(names)}" for kind, names in kinds.items() if names)
    if lost:
        raise ContractMismatchError(
            f"work pool {pool.name} has type {pool.type}, expected {BATCH_TYPE}, and would lose "
            f"what it has: {lost}",
            "stop its workers, let its runs end or cancel them, then run: prefect work-pool "
            f"delete {pool.name}, and then: safelight deploy",
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (
        f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    )


def change_embedded(pool: str, pool_type: str) -> None:
    """Change the type of a pool of the embedded server of this volume, so that nothing is lost.

    Raises:
        UnknownError: its database could not be changed.
    """
    home = prefect_home(settings().volume_root)
    log = home / "pool-type.log"
    with log.open("wb") as output:
        changing = start_child(
            RETYPE,
            (pool, pool_type),
            environment={**os.environ, **QUIET, "PREFECT_HOME": str(home)},
            output=output,
        )
        code = changing.wait()
    if code:
        raise UnknownError(
            f"the type of work pool {pool} was not changed: {_tail(log)}", f"read {log}"
        )


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-500:]
