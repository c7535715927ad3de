"""What a worker asks of the server about the runs that it has, and what it tells it of them."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import anyio
import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_logger
from prefect.types import KeyValueLabels

from safelight.pool.belonging import Belonging
from safelight.pool.fencing import awake
from safelight.pool.ownership import (
    LEASE_LABEL,
    RENEW_SECONDS,
    Claim,
    Owner,
    claim_of,
    here,
    host_name,
    loss,
)
from safelight.pool.process import WarmProcess
from safelight.process_identity import own_pid, own_start, started
from safelight.progress import StopReason

LOG = get_logger("safelight.pool")
HEARTBEAT = "prefect.flow-run.heartbeat"
HEARTBEAT_SECONDS = 30.0
"""How often running runs give a sign of life, for automations that look for stuck ones."""
WATCH_SECONDS = 2.0
"""How often the server is asked about running runs."""
FLOW_RUN = "prefect.flow-run."
AT_ONCE = 100
"""Runs asked for in one request; the server gives no more than 200."""


class Running:
    """A flow run in a process of this worker."""

    def __init__(self, flow_run: FlowRun, process: WarmProcess, grace_seconds: float) -> None:
        self.flow_run = flow_run
        self.process = process
        self.grace_seconds = grace_seconds
        self.claim = Claim.on(flow_run)
        self.stopping: StopReason | None = None
        """What it has been told; None when it goes on."""
        self.ending = False
        """It was seen in a final state, which its own process may have given it."""
        self.over = asyncio.Event()

    @property
    def cancelling(self) -> bool:
        """Whether it was asked to end as Cancelled."""
        return self.stopping is StopReason.CANCEL

    @property
    def owner(self) -> str:
        """What stands on the run: its process, this worker and the claim."""
        pid = self.process.pid or 0
        begun = started(pid) if pid else 0
        worker = (own_pid(), own_start())
        return str(Owner(host_name(), pid, begun or 0, *worker, here(), self.claim))


Stop = Callable[[Running, StopReason], None]


async def watch(
    client: PrefectClient, runs: Mapping[UUID, Running], stop: Stop, belonging: Belonging
) -> None:
    """Look at the running runs every two seconds, and stop what is cancelled, over or not ours.

    Args:
        client: of the Prefect API.
        runs: those in processes of this worker, as they come and go.
        stop: tells a run to stop; called again for a run that has been told is no harm.
        belonging: tells of the batches that runs were made for.
    """
    while True:
        await anyio.sleep(WATCH_SECONDS)
        ids = list(runs)
        for first in range(0, len(ids), AT_ONCE):
            with suppress(httpx.HTTPError):
                await look(client, runs, ids[first : first + AT_ONCE], stop, belonging)


async def look(
    client: PrefectClient,
    runs: Mapping[UUID, Running],
    ids: list[UUID],
    stop: Stop,
    belonging: Belonging,
) -> None:
    """Ask once for these runs; see `watch`."""
    asked = awake()
    answer = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids))
    )
    found = {flow_run.id: flow_run for flow_run in answer}
    for run_id in ids:
        running = runs.get(run_id)
        if running is None:
            continue
        flow_run = found.get(run_id)
        why = loss(flow_run, running.claim)
        if why is not None:
            state = flow_run.state if flow_run is not None else None
            if state is not None and state.is_final() and not running.ending:
                running.ending = True  # most likely by its own process, which is about to say so
                continue
            if running.stopping is not StopReason.GIVE_UP:
                LOG.info("flow run %s is stopped: %s", run_id, why)
            stop(running, StopReason.GIVE_UP)
            continue
        if flow_run is None or flow_run.state is None:
            continue
        if flow_run.state.is_cancelling() or await belonging.unwanted(flow_run) is not None:
            stop(running, StopReason.CANCEL)
        await anyio.to_thread.run_sync(running.process.confirm, run_id, asked)
        if claim_of(flow_run).number < running.claim.number and running.process.pid:
            await client.update_flow_run(run_id, infrastructure_pid=running.owner)


async def renew(client: PrefectClient, runs: Mapping[UUID, Running], worker: str) -> None:
    """Renew the leases of the running runs, so that no other worker takes them.

    The server reads labels and writes them back, so that of two changes at once one is lost. Each
    renewal says again who has the run.
    """
    while True:
        await anyio.sleep(RENEW_SECONDS)
        for run_id in list(runs):
            with suppress(httpx.HTTPError, ObjectNotFound):
                now = datetime.now(UTC).isoformat(timespec="milliseconds")
                labels: KeyValueLabels = {LEASE_LABEL: now, "prefect.worker.name": worker}
                await client.update_flow_run_labels(run_id, labels)


async def beat(runs: Mapping[UUID, Running]) -> None:
    """Send Prefect's heartbeat events for the running runs."""
    while True:
        for running in list(runs.values()):
            if running.process.alive:
                emit_event(HEARTBEAT, resource=_resource(running.flow_run))
        await anyio.sleep(HEARTBEAT_SECONDS)


def _resource(flow_run: FlowRun) -> dict[str, str]:
    return {
        "prefect.resource.id": f"{FLOW_RUN}{flow_run.id}",
        "prefect.resource.name": flow_run.name,
    }
