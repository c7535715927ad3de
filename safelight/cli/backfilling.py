"""Runs that a schedule would have made while it was paused, or no server was there."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.states import Scheduled

from safelight.cli.schedules import CORRECT, check_parameters, moments
from safelight.client.asking import patient_client
from safelight.errors import DependencyMissingError, InvalidFieldValueError

MOST_RUNS = 500
"""One call creates no more; a longer time is filled in several."""
TAG = "backfill"


@dataclass(frozen=True)
class FilledRun:
    """One run of a schedule in the past."""

    due: datetime
    """When the schedule would have started it."""
    name: str
    """Name of the flow run."""
    created: bool
    """False when it was there already."""


def backfill(
    deployment: str, since: datetime, until: datetime, slug: str | None = None
) -> list[FilledRun]:
    """Create the runs that a deployment's schedules would have made; those that exist are kept.

    Each run has the idempotency key that Prefect's scheduler gives it, so neither a second call
    nor the scheduler makes it twice. Paused schedules count: they are what this is for.

    Args:
        deployment: `flow/name`, or one name for both.
        since: the first moment that counts.
        until: the last one, not in the future.
        slug: only the schedule of this slug.

    Raises:
        DependencyMissingError: there is no such deployment, or it has no such schedule.
        InvalidFieldValueError: that is no name, no moment lies between the two, or too many do, or
            the deployment refuses the parameters of a schedule; nothing is created then.
    """
    if not since <= until <= datetime.now(UTC):
        raise InvalidFieldValueError(
            f"since is {since.isoformat()} and until {until.isoformat()}, expected since before "
            "until and until not in the future",
            "correct since and until",
        )
    name = deployment if "/" in deployment else f"{deployment}/{deployment}"
    parts = name.split("/")
    if len(parts) != 2 or not all(parts):
        raise InvalidFieldValueError(
            f"the deployment is {deployment[:200]!r}, expected FLOW/NAME or one name",
            "correct the name",
        )
    with patient_client() as client:
        found = _deployment(client, name)
        schedules = _schedules(found, name, slug)
        for schedule in schedules:
            check_parameters(found, schedule, name)
        due = [
            (schedule, moment)
            for schedule in schedules
            for moment in _moments(schedule, since, until)
        ]
        if len(due) > MOST_RUNS:
            raise InvalidFieldValueError(
                f"the schedules of {name} have more than {MOST_RUNS} runs in this time",
                "bring since and until closer together",
            )
        return _filled(client, found, due)


def _deployment(client: SyncPrefectClient, name: str) -> DeploymentResponse:
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound as error:
        raise DependencyMissingError(
            f"the server has no deployment {name}", "correct the name, or run: safelight deploy"
        ) from error


def _schedules(
    deployment: DeploymentResponse, name: str, slug: str | None
) -> list[DeploymentSchedule]:
    schedules = [s for s in deployment.schedules if slug is None or s.slug == slug]
    if not schedules:
        there = ", ".join(s.slug or "one without a slug" for s in deployment.schedules) or "none"
        raise DependencyMissingError(
            f"{name} has no schedule {slug or ''}; it has {there}",
            "add a schedule to the deployment, or correct the slug",
        )
    return schedules


def _moments(schedule: DeploymentSchedule, since: datetime, until: datetime) -> Sequence[datetime]:
    return moments(schedule, since, until, MOST_RUNS + 1)


def _filled(
    client: SyncPrefectClient,
    deployment: DeploymentResponse,
    due: Sequence[tuple[DeploymentSchedule, datetime]],
) -> list[FilledRun]:
    filled: list[FilledRun] = []
    for schedule, moment in due:
        key = f"scheduled {deployment.id} {schedule.id} {moment}"
        there = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[key])),
            limit=1,
        )
        try:
            run = client.create_flow_run_from_deployment(
                deployment.id,
                parameters=schedule.parameters,
                state=Scheduled(scheduled_time=moment, message="filled in after its time"),
                tags=[TAG],
                idempotency_key=key,
            )
        except InvalidFieldValueError as error:
            raise InvalidFieldValueError(
                f"the server refused a run of schedule {schedule.slug or schedule.id} of "
                f"{deployment.name}: {error.problem}",
                CORRECT,
            ) from error
        filled.append(FilledRun(moment, run.name, created=not there))
    return filled
