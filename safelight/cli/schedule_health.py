"""Checks that active schedules make runs, and that no schedule makes runs that are refused."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
)
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort

from safelight.cli.findings import Finding, finding
from safelight.cli.left_deployments import flow_of
from safelight.cli.schedules import check_parameters, moments
from safelight.cli.service_health import LOOPS, RESTART, Service
from safelight.client.paging import pages
from safelight.errors import PipelineError

AHEAD = timedelta(days=100)
"""As far as Prefect plans."""
NEAR = timedelta(hours=2)
"""Prefect counts intervals from where it is asked: round a change of clocks moments differ."""


def schedule_findings(
    client: SyncPrefectClient, scheduler: Service, deployments: list[DeploymentResponse]
) -> Iterator[Finding]:
    """Active schedules that make no runs, and schedules whose every run would be refused."""
    active = 0
    well = True
    for deployment in deployments:
        refused = list(refused_schedules([deployment]))
        yield from refused
        well = well and not refused
        planned: set[tuple[str, datetime]] | None = None
        for schedule in deployment.schedules:
            if not schedule.active:
                continue
            active += 1
            planned = _planned(client, deployment) if planned is None else planned
            trouble = _without_run(deployment, schedule, planned, scheduler.loop_seconds)
            if trouble is not None:
                well = False
                yield trouble
    if well:
        yield finding("schedules", f"{active} active, each has its next run")


def refused_schedules(deployments: list[DeploymentResponse]) -> Iterator[Finding]:
    """Schedules whose parameters their deployment refuses, active or not."""
    for deployment in deployments:
        for schedule in deployment.schedules:
            try:
                check_parameters(deployment, schedule, deployment.name)
                flow = flow_of(deployment)
                if flow is not None:
                    flow.check({**deployment.parameters, **schedule.parameters})
            except PipelineError as error:
                yield _refused(deployment, schedule, error)


def _refused(
    deployment: DeploymentResponse, schedule: DeploymentSchedule, error: PipelineError
) -> Finding:
    return finding(
        _name(deployment, schedule),
        f"every run of it would be refused: {error.problem}",
        "problem" if schedule.active else "warning",
        error.remedy,
    )


def _without_run(
    deployment: DeploymentResponse,
    schedule: DeploymentSchedule,
    planned: set[tuple[str, datetime]],
    loop: float,
) -> Finding | None:
    what = _name(deployment, schedule)
    if deployment.paused:
        return finding(
            what,
            "active, but its deployment is paused: it makes no runs",
            "warning",
            f"run: prefect deployment resume {deployment.name}/{deployment.name}",
        )
    now = datetime.now(UTC)
    ahead = moments(schedule, now, now + AHEAD, 1)
    if not ahead:
        return finding(
            what, "active, but it names no moment ahead", "warning", "correct it, or switch it off"
        )
    (due,) = ahead
    if any(of == str(schedule.id) and at < due + NEAR for of, at in planned):
        return None
    settled = timedelta(seconds=LOOPS * loop)
    changed = [at for at in (schedule.updated, deployment.updated) if at is not None]
    if (changed and now - max(changed) < settled) or due - now < settled:
        return None
    return finding(
        what,
        f"active, but its next run at {due.isoformat()} is not planned: the scheduler has failed",
        "problem",
        RESTART,
    )


def _planned(
    client: SyncPrefectClient, deployment: DeploymentResponse
) -> set[tuple[str, datetime]]:
    """Schedule and moment of all runs that the server has planned ahead."""
    now = datetime.now(UTC)
    wanted = FlowRunFilter(
        expected_start_time=FlowRunFilterExpectedStartTime(after_=now)  # pyright: ignore[reportArgumentType]
    )
    runs = pages(
        lambda offset: client.read_flow_runs(
            flow_run_filter=wanted,
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
            sort=FlowRunSort.ID_DESC,
            offset=offset,
        )
    )
    return {
        (str(run.created_by.id), run.expected_start_time.astimezone(UTC))
        for run in runs
        if run.created_by is not None and run.expected_start_time is not None
    }


def _name(deployment: DeploymentResponse, schedule: DeploymentSchedule) -> str:
    return f"schedule {schedule.slug or schedule.id} of {deployment.name}"
