"""Checks the background services of the Prefect server by what they leave undone.

A server does not say whether its services run; what each of them ought to have done does. Of
automations nothing can be told so.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterId,
    FlowRunFilterNextScheduledStartTime,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType, Worker
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.filters import EventFilter, EventOccurredFilter, EventResourceFilter
from pydantic import BaseModel

from safelight.cli.findings import Finding, finding
from safelight.client.paging import every_worker

LOOPS = 4
"""Times that a service may come round before what it left undone counts."""
SLACK = timedelta(minutes=1)
"""What a busy server takes longer."""
LOOK = timedelta(hours=1)
"""How far back ended runs are looked at."""
RESTART = "read the server's log, then restart the server or its services"
WAITING = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING)


class Service(BaseModel):
    """Settings of one service; the server tells more."""

    enabled: bool = True
    loop_seconds: float = 0.0
    after_seconds: timedelta = timedelta()
    """Of the service of late runs."""
    inactivity_heartbeat_multiple: int = 3
    """Of the service of workers' status."""
    fallback_heartbeat_interval_seconds: int = 30
    """Of the service of workers' status."""

    @property
    def patience(self) -> timedelta:
        """After this much time the service has come round."""
        return timedelta(seconds=LOOPS * self.loop_seconds) + SLACK


class Services(BaseModel):
    """Settings of those that runs rely on."""

    scheduler: Service = Service()
    late_runs: Service = Service()
    foreman: Service = Service()
    cancellation_cleanup: Service = Service()
    event_persister: Service = Service()
    task_run_recorder: Service = Service()


def services(client: SyncPrefectClient) -> Services:
    """What the server says of its services' settings."""
    answer = client.request("GET", "/admin/settings")
    return Services.model_validate(answer.json()["server"]["services"])


def service_findings(
    client: SyncPrefectClient, known: Services, pools: list[str], staged: set[UUID]
) -> Iterator[Finding]:
    """Services that left something undone; one line when there is none.

    Args:
        client: of the server.
        known: what it says of its services.
        pools: work pools whose workers are looked at.
        staged: deployments whose runs have stages.
    """
    workers = [worker for pool in pools for worker in every_worker(client, pool)]
    checks: tuple[tuple[str, Service, Callable[[Service], str | None]], ...] = (
        ("of late runs", known.late_runs, lambda service: _late(client, service)),
        ("of workers' status", known.foreman, lambda service: silent_worker(workers, service)),
        ("of cancelled children", known.cancellation_cleanup, lambda s: _children(client, s)),
        ("of events", known.event_persister, lambda service: _events(client, service)),
        ("of task runs", known.task_run_recorder, lambda s: _tasks(client, s, staged)),
    )
    well = True
    for name, service, undone in checks:
        if not service.enabled:
            well = False
            yield finding(
                f"service {name}", "switched off on the server", "warning", "switch it on there"
            )
            continue
        found = undone(service)
        if found is not None:
            well = False
            yield finding(f"service {name}", f"has failed: {found}", "problem", RESTART)
    if well:
        listed = ", ".join(name.removeprefix("of ") for name, _, _ in checks)
        yield finding("services of the server", f"nothing is left undone ({listed})")


def _late(client: SyncPrefectClient, service: Service) -> str | None:
    due = datetime.now(UTC) - service.after_seconds - service.patience
    wanted = FlowRunFilter(
        state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Scheduled"])),
        next_scheduled_start_time=FlowRunFilterNextScheduledStartTime(before_=due),  # pyright: ignore[reportArgumentType]
    )
    runs = client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.ID_DESC, limit=1)
    return f"{runs[0].name} is due for long and not called late" if runs else None


def silent_worker(workers: list[Worker], service: Service) -> str | None:
    """What is said of a worker that is called online, and is not; None when there is none."""
    now = datetime.now(UTC)
    for worker in workers:
        if worker.status != "ONLINE" or worker.last_heartbeat_time is None:
            continue
        between = worker.heartbeat_interval_seconds or service.fallback_heartbeat_interval_seconds
        silent = now - worker.last_heartbeat_time
        allowed = timedelta(seconds=between * service.inactivity_heartbeat_multiple)
        if silent > allowed + service.patience:
            seconds = silent.total_seconds()
            return f"worker {worker.name} is called online, but is silent for {seconds:.0f} s"
    return None


def _ended(client: SyncPrefectClient, state: StateType, patience: timedelta) -> list[FlowRun]:
    now = datetime.now(UTC)
    wanted = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[state])),
        end_time=FlowRunFilterEndTime(after_=now - LOOK, before_=now - patience),  # pyright: ignore[reportArgumentType]
    )
    return client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.END_TIME_DESC, limit=50)


def _children(client: SyncPrefectClient, service: Service) -> str | None:
    ids = [run.id for run in _ended(client, StateType.CANCELLED, service.patience)]
    if not ids:
        return None
    wanted = FlowRunFilter(
        parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=ids),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(WAITING))),
    )
    runs = client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.ID_DESC, limit=1)
    if not runs:
        return None
    return f"{runs[0].name} goes on though the run that started it was cancelled"


def _events(client: SyncPrefectClient, service: Service) -> str | None:
    for run in _ended(client, StateType.COMPLETED, service.patience)[:1]:
        resource = EventResourceFilter(id=[f"prefect.flow-run.{run.id}"])
        occurred = EventOccurredFilter(since=datetime.now(UTC) - 2 * LOOK)  # pyright: ignore[reportArgumentType]
        found = client.read_events(EventFilter(resource=resource, occurred=occurred), limit=1)
        if not found.events:
            return f"{run.name} completed, and no event says so"
    return None


def _tasks(client: SyncPrefectClient, service: Service, ours: set[UUID]) -> str | None:
    completed = _ended(client, StateType.COMPLETED, service.patience)
    for run in [run for run in completed if run.deployment_id in ours][:1]:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        if not client.read_task_runs(flow_run_filter=wanted, limit=1):
            return f"{run.name} completed, and none of its stages is on record"
    return None
