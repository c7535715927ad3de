"""What a schedule would have run, wherever the question begins."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import IntervalSchedule

from safelight.cli.schedules import check_parameters, moments
from safelight.errors import (
    ContractMismatchError,
    InvalidFieldValueError,
    MissingRequiredFieldError,
    PipelineError,
)

ZONES = ["UTC", "America/New_York", "Australia/Lord_Howe", "Europe/London", "Asia/Kolkata"]
UNTIL = datetime(2025, 12, 1, tzinfo=UTC)


def scheduled(interval: timedelta, anchor: datetime, zone: str) -> DeploymentSchedule:
    kind = IntervalSchedule(interval=interval, anchor_date=anchor, timezone=zone)
    return DeploymentSchedule(schedule=kind, active=True, slug="nightly")


@settings(deadline=None, max_examples=60)
@given(
    zone=st.sampled_from(ZONES),
    anchor=st.datetimes(datetime(2024, 1, 1), datetime(2025, 12, 31)),
    hours=st.sampled_from([1, 5, 24, 36, 48, 168]),
    gap=st.integers(0, 60 * 24 * 14),
)
def test_a_later_since_gives_the_rest_of_the_same_moments(
    zone: str, anchor: datetime, hours: int, gap: int
):
    schedule = scheduled(timedelta(hours=hours), anchor.replace(tzinfo=UTC), zone)
    since = UNTIL - timedelta(days=19)
    for first in (since, datetime(2025, 10, 22, tzinfo=UTC), datetime(2025, 3, 5, tzinfo=UTC)):
        last = first + timedelta(days=18)
        later = first + timedelta(minutes=gap)
        whole = moments(schedule, first, last, 501)
        assert moments(schedule, later, last, 501) == [due for due in whole if due >= later]


def test_a_daily_schedule_keeps_its_time_of_day_when_clocks_change():
    zone = ZoneInfo("America/New_York")
    schedule = scheduled(
        timedelta(days=1), datetime(2025, 1, 1, 1, 15, tzinfo=zone), "America/New_York"
    )
    due = moments(
        schedule, datetime(2025, 10, 31, tzinfo=UTC), datetime(2025, 11, 5, tzinfo=UTC), 501
    )
    assert [moment.strftime("%d %H:%M") for moment in due] == [
        f"{day:02} 01:15" for day in (31, 1, 2, 3, 4)
    ]


SCHEMA = {
    "type": "object",
    "required": ["prompt"],
    "additionalProperties": False,
    "properties": {
        "prompt": {"type": "string"},
        "strength": {"type": "number", "minimum": 0, "maximum": 1},
        "seed": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}], "default": None},
        "quality": {"enum": ["low", "pro"], "type": "string"},
    },
}


@pytest.mark.parametrize(
    ("parameters", "kind", "said"),
    [
        ({"prompt": "a", "strength": 3}, InvalidFieldValueError, "strength is 3, expected at most"),
        ({"prompt": "a", "seed": -4}, InvalidFieldValueError, "seed is -4, expected at least 0"),
        ({"prompt": "a", "quality": "x"}, InvalidFieldValueError, "quality is 'x', expected one"),
        ({"strength": 0.5}, MissingRequiredFieldError, "'prompt'"),
        ({"prompt": "a", "promt": "b"}, ContractMismatchError, "'promt'"),
    ],
)
def test_parameters_that_the_deployment_refuses_are_named(
    parameters: dict[str, object], kind: type[PipelineError], said: str
):
    deployment = DeploymentResponse.model_construct(
        parameters={}, parameter_openapi_schema=SCHEMA, enforce_parameter_schema=True
    )
    schedule = scheduled(timedelta(days=1), UNTIL, "UTC")
    good = schedule.model_copy(update={"parameters": {"prompt": "a", "seed": None}})
    check_parameters(deployment, good, "generate/generate")
    bad = schedule.model_copy(update={"parameters": parameters})
    with pytest.raises(kind, match=said) as refused:
        check_parameters(deployment, bad, "generate/generate")
    assert "schedule nightly of generate/generate" in refused.value.problem
