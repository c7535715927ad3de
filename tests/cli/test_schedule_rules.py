"""No rule of a schedule keeps the server counting."""

from datetime import UTC, datetime
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.server.schemas.schedules import DEFAULT_ANCHOR_DATE

from safelight.cli import schedule_rules
from safelight.cli.schedule_rules import BEGINS, endless_rule
from tests.prefect_pool import credentials

TODAY = datetime.now(UTC).strftime("DTSTART:%Y%m%dT000000Z\nRRULE:")
NEVER = "BYMONTH=2;BYMONTHDAY=30"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(schedule_rules, "SECONDS", 0.5)


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=SECONDLY",
        f"FREQ=SECONDLY;{NEVER}",
        f"{TODAY}FREQ=SECONDLY;{NEVER}",
        "RRULE:FREQ=MINUTELY;INTERVAL=1;BYSECOND=1",
        f"{TODAY}FREQ=DAILY\nEXRULE:FREQ=SECONDLY",
    ],
)
def test_a_rule_that_takes_too_long_is_found_wherever_it_stands(rule: str):
    for body in (
        {"schedules": [{"active": True, "schedule": {"rrule": rule}}]},
        [{"schedule": {"rrule": rule, "timezone": "Europe/Paris"}}],
    ):
        problem = endless_rule(body)
        assert problem is not None
        assert "schedule.rrule is" in problem
        assert "DTSTART" in problem


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=HOURLY;INTERVAL=6",
        "FREQ=WEEKLY;BYDAY=MO,WE;BYHOUR=2",
        f"{TODAY}FREQ=MINUTELY",
        "DTSTART:20260101T090000\nRRULE:FREQ=DAILY;COUNT=3",
        "nonsense",
        "",
        "x" * 20_000,
    ],
)
def test_other_rules_are_left_to_prefect(rule: str):
    assert endless_rule({"schedule": {"rrule": rule}}) is None


def test_what_a_flow_takes_is_no_schedule():
    assert endless_rule({"parameters": {"rrule": "FREQ=SECONDLY"}, "rrule": 3}) is None


def test_rules_begin_where_prefect_has_them_begin():
    assert DEFAULT_ANCHOR_DATE.isoformat() == BEGINS


def test_the_server_refuses_it_and_keeps_the_others(api: SyncPrefectClient, prefect_server: str):
    name = f"rules-{uuid4().hex[:8]}"
    deployment = api.create_deployment(api.create_flow_from_name(name), name=name)
    with httpx.Client(base_url=prefect_server, timeout=120, headers=credentials()) as client:
        path = f"/deployments/{deployment}/schedules"
        endless = [{"active": True, "schedule": {"rrule": f"FREQ=SECONDLY;{NEVER}"}}]
        answer = client.post(path, json=endless)
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith("[INVALID_FIELD_VALUE] [0].schedule.rrule")
        daily = [{"active": True, "schedule": {"rrule": "FREQ=DAILY"}}]
        assert client.post(path, json=daily).status_code == 201
        kept = client.get(path).json()
    assert [each["schedule"]["rrule"].splitlines()[-1] for each in kept] == ["FREQ=DAILY"]
