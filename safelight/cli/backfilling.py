"""Runs that a schedule would have made while it was paused, or no server was there."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.exceptions import ObjectNotFound
from prefect.states import Scheduled
from prefect.utilities.schema_tools.validation import validate
from pydantic import TypeAdapter

from safelight.client.asking import patient_client
from safelight.errors import (
    ContractMismatchError,
    DependencyMissingError,
    InvalidFieldValueError,
    MissingRequiredFieldError,
)

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
        InvalidFieldValueError: no moment lies between the two, or too many do, or the deployment
            refuses the parameters of a schedule; nothing is created then.
    """
    if not since <= until <= datetime.now(UTC):
        raise InvalidFieldValueError(
            f"since is {since.isoformat()} and until {until.isoformat()}, expected since before "
            "until and until not in the future",
            "correct since and until",
        )
    name = deployment if "/" in deployment else f"{deployment}/{deployment}"
    with patient_client() as client:
        found = _deployment(client, name)
        schedules = _schedules(found, name, slug)
        for schedule in schedules:
            _check_parameters(found, schedule, name)
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


def _check_parameters(
    deployment: DeploymentResponse, schedule: DeploymentSchedule, name: str
) -> None:
    """Refuse what the server would refuse for every run; it takes such a schedule unseen."""
    schema = deployment.parameter_openapi_schema
    if not schema or not deployment.enforce_parameter_schema:
        return
    errors = validate({**deployment.parameters, **schedule.parameters}, schema)
    if not errors:
        return
    which = f"schedule {schedule.slug or schedule.id} of {name}"
    first: Any = errors[0]
    while first.context:  # of alternatives, what the value comes nearest to
        first = min(first.context, key=lambda error: error.validator == "type")
    field = ".".join(str(part) for part in first.absolute_path)
    if first.validator == "required":
        raise MissingRequiredFieldError(
            f"{which}: {first.message}", "add it to the schedule's parameters"
        )
    if not field:
        raise ContractMismatchError(f"{which}: {first.message}", _CORRECT)
    found = repr(first.instance)
    found = found if len(found) <= 80 else f"{found[:77]}..."
    words = _EXPECTED.get(first.validator)
    expected = f"expected {words} {first.validator_value}" if words else first.message
    raise InvalidFieldValueError(f"{which}: field {field} is {found}, {expected}", _CORRECT)


_CORRECT = "correct the schedule's parameters"
_EXPECTED = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
    "multipleOf": "a multiple of",
    "enum": "one of",
    "type": "a value of type",
}
"""JSON schema's keyword to the words before its value."""


def _moments(schedule: DeploymentSchedule, since: datetime, until: datetime) -> Sequence[datetime]:
    from prefect.server.schemas.schedules import SCHEDULE_TYPES

    if isinstance(schedule.schedule, IntervalSchedule):
        return _intervals(schedule.schedule, since, until)
    known = TypeAdapter[SCHEDULE_TYPES](SCHEDULE_TYPES).validate_python(
        schedule.schedule.model_dump()
    )
    return asyncio.run(known.get_dates(n=MOST_RUNS + 1, start=since, end=until))


def _intervals(schedule: IntervalSchedule, since: datetime, until: datetime) -> list[datetime]:
    """The moments of an interval schedule, always counted from its anchor.

    Prefect counts from where it is asked, so that a moment that falls into an hour that clocks
    skip or repeat moves all that follow it. As there, whole days keep the time of day in the
    schedule's zone and the rest of an interval is exact.
    """
    zone = ZoneInfo(schedule.timezone or "UTC")
    anchor = datetime.fromisoformat(schedule.anchor_date.isoformat()).astimezone(zone)
    days, rest = timedelta(days=schedule.interval.days), schedule.interval % timedelta(days=1)
    wall = anchor.replace(tzinfo=None)
    found: list[datetime] = []
    for step in count((since - anchor) // schedule.interval - 2):
        if days:
            due = (wall + step * days).replace(tzinfo=zone, fold=anchor.fold)
        else:
            due = anchor
        moment = (due.astimezone(UTC) + step * rest).astimezone(zone)
        if moment > until or len(found) > MOST_RUNS:
            return found
        if moment >= since:
            found.append(moment)
    return found


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
                _CORRECT,
            ) from error
        filled.append(FilledRun(moment, run.name, created=not there))
    return filled
