"""Says on the pages of waiting runs what they wait for.

One worker of each pool does so. The text has its time, since nobody may be there to take it away.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterNextScheduledStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

from safelight.client.asking import patient_client
from safelight.client.paging import every_worker
from safelight.pool.announcing import announced
from safelight.pool.devices import Device, DeviceKind
from safelight.pool.routing import fits, job_variables

LOOK_SECONDS = 15.0
"""How often."""
WAITED = timedelta(seconds=10)
"""A run that is due for less time is not said to wait."""
COUNTED = 10
"""Places in the line that are told one by one; all others change nothing when one moves up."""
_ORDINALS = ("next", *"second third fourth fifth sixth seventh eighth ninth tenth".split())


@dataclass
class _Page:
    artifact: UUID
    reason: str


class WaitingRoom:
    """The waiting runs of a work pool, and what their pages say."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._pages: dict[UUID, _Page] = {}

    def look(self, client: SyncPrefectClient) -> None:
        """Bring the pages of all waiting runs up to date.

        Raises:
            PipelineError: the server does not answer; the next look makes up for it.
        """
        found = reasons(client, self._pool)
        for run_id in self._pages.keys() - found.keys():
            page = self._pages.pop(run_id)
            try:
                client.delete_artifact(page.artifact)
            except ObjectNotFound:  # it went with its run
                continue
        for run_id, reason in found.items():
            self._say(client, run_id, reason)

    def _say(self, client: SyncPrefectClient, run_id: UUID, reason: str) -> None:
        page = self._pages.get(run_id)
        if page is not None and page.reason == reason:
            return
        text = f"**Waiting**: {reason} (seen at {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC)"
        if page is not None:
            try:
                client.update_artifact(page.artifact, ArtifactUpdate(data=text))
            except ObjectNotFound:  # somebody removed it, or the run
                del self._pages[run_id]
                return
            page.reason = reason
            return
        wanted = ArtifactCreate(
            type="markdown", flow_run_id=run_id, data=text, description="what it waits for"
        )
        self._pages[run_id] = _Page(client.create_artifact(wanted).id, reason)


def say_why(pool: str, worker: str, rooms: dict[str, WaitingRoom]) -> None:
    """Bring the pages of a pool's waiting runs up to date if this worker is the one to do so.

    Args:
        pool: its name.
        worker: who asks.
        rooms: what this worker has said so far, by pool.

    Raises:
        PipelineError: the server does not answer, or refuses; the next time makes up for it.
    """
    with patient_client(0.0, stops=False) as client:
        if leads(client, pool, worker):
            rooms.setdefault(pool, WaitingRoom(pool)).look(client)


def leads(client: SyncPrefectClient, pool: str, worker: str) -> bool:
    """Whether a worker is the one of its pool that tells: the first by name of those online."""
    online = [found.name for found in every_worker(client, pool) if found.status == "ONLINE"]
    return not online or worker <= min(online)


def reasons(client: SyncPrefectClient, pool: str) -> dict[UUID, str]:
    """What each run of a work pool that is due and has not begun waits for.

    Args:
        client: of the server.
        pool: of type `safelight-gpu`.
    """
    described = client.read_work_pool(pool)
    due = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        next_scheduled_start_time=FlowRunFilterNextScheduledStartTime(
            before_=datetime.now(UTC) - WAITED  # pyright: ignore[reportArgumentType]
        ),
    )
    runs = client.read_flow_runs(  # the first page: those behind wait for these
        flow_run_filter=due,
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
        sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC,
    )
    if not runs:
        return {}
    if described.is_paused:
        said = f"the work pool {pool} is paused; to go on: prefect work-pool resume {pool}"
        return dict.fromkeys((run.id for run in runs), said)
    known = _Known(client)
    devices = _devices(client, pool)
    found: dict[UUID, str] = {}
    line = 0
    for run in runs:
        wants = job_variables(described, known.deployment(run), run)
        reason = known.hindrance(run) or _unfit(wants, devices)
        if reason is None and run.state_name == "AwaitingConcurrencySlot":
            reason = "as many runs of its deployment as may run at once are running"
        if reason is None:
            line += 1
            reason = f"{_place(line)} in line, all devices are busy"
        found[run.id] = reason
    return found


def _place(line: int) -> str:
    return _ORDINALS[line - 1] if line <= COUNTED else f"behind {COUNTED} others or more"


class _Known:
    """Queues and deployments of the waiting runs, each asked for once a look."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client
        self._hindrances: dict[UUID, str | None] = {}
        self._deployments: dict[UUID, DeploymentResponse | None] = {}

    def hindrance(self, run: FlowRun) -> str | None:
        """Why the queue of a run keeps it; None when it does not."""
        if run.work_queue_id is None:
            return None
        if run.work_queue_id not in self._hindrances:
            queue = self._client.read_work_queue(run.work_queue_id)
            said = None
            if queue.is_paused:
                said = f"the queue {queue.name} is paused; to go on, resume it in the UI"
            elif queue.concurrency_limit == 0:
                said = f"the queue {queue.name} lets no run through: its limit is 0"
            self._hindrances[run.work_queue_id] = said
        return self._hindrances[run.work_queue_id]

    def deployment(self, run: FlowRun) -> DeploymentResponse | None:
        """What a run was made from; None when it is gone."""
        if run.deployment_id is None:
            return None
        if run.deployment_id not in self._deployments:
            self._deployments[run.deployment_id] = None
            with suppress(ObjectNotFound):
                found = self._client.read_deployment(run.deployment_id)
                self._deployments[run.deployment_id] = found
        return self._deployments[run.deployment_id]


def _devices(client: SyncPrefectClient, pool: str) -> list[Device]:
    """Of all workers that are online, as they told; without what a process needs to see one."""
    online = [each.name for each in every_worker(client, pool) if each.status == "ONLINE"]
    return [
        Device(name, cast("DeviceKind", name.partition(":")[0]), memory, ())
        for told in announced(client, pool, online).values()
        for name, memory in told.devices.items()
    ]


def _unfit(wants: Mapping[str, Any], devices: Sequence[Device]) -> str | None:
    """What no worker has; None when one has what the run asks for."""
    if not devices:
        return "no worker is online"
    kind, vram = wants.get("device", "any"), float(wants.get("min_vram_gib") or 0)
    if any(fits(device, kind, vram) for device in devices):
        return None
    suiting = [device for device in devices if kind in ("any", device.kind)]
    names = {"cuda": "a CUDA device", "mps": "an Apple GPU", "cpu": "a CPU to run on"}
    if not suiting:
        return f"no worker has {names.get(kind, kind)}"
    most = max((device.memory_gib for device in suiting if device.kind != "cpu"), default=0.0)
    return f"no worker has a GPU of {vram:g} GiB; the largest has {most:.0f}"
