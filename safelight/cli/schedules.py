"""What a deployment's schedules plan: their moments, and parameters that are refused."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.utilities.schema_tools.validation import validate
from pydantic import TypeAdapter

from safelight.errors import (
    ContractMismatchError,
    InvalidFieldValueError,
    MissingRequiredFieldError,
)
from safelight.params import shown

CORRECT = "correct the schedule's parameters"
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


def check_parameters(
    deployment: DeploymentResponse, schedule: DeploymentSchedule, name: str
) -> None:
    """Refuse what the server would refuse for every run; it takes such a schedule unseen.

    Raises:
        MissingRequiredFieldError: a parameter without a default is not there.
        ContractMismatchError: the deployment has no such parameter.
        InvalidFieldValueError: a value is outside its limits.
    """
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
        raise ContractMismatchError(f"{which}: {first.message}", CORRECT)
    words = _EXPECTED.get(first.validator)
    expected = f"expected {words} {first.validator_value}" if words else first.message
    raise InvalidFieldValueError(
        f"{which}: field {field} is {shown(first.instance)}, {expected}", CORRECT
    )


def moments(
    schedule: DeploymentSchedule, since: datetime, until: datetime, most: int
) -> Sequence[datetime]:
    """When a schedule starts runs, as Prefect's scheduler counts.

    Args:
        schedule: active or not.
        since: the first moment that counts.
        until: the last one.
        most: no more are given.
    """
    from prefect.server.schemas.schedules import SCHEDULE_TYPES

    if isinstance(schedule.schedule, IntervalSchedule):
        return _intervals(schedule.schedule, since, until, most)
    known = TypeAdapter[SCHEDULE_TYPES](SCHEDULE_TYPES).validate_python(
        schedule.schedule.model_dump()
    )
    return asyncio.run(known.get_dates(n=most, start=since, end=until))


def _intervals(
    schedule: IntervalSchedule, since: datetime, until: datetime, most: int
) -> list[datetime]:
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
        if moment > until or len(found) >= most:
            return found
        if moment >= since:
            found.append(moment)
    return found
