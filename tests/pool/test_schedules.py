"""Schedules that are switched on make runs, and the runs complete."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

from tests.prefect_pool import Pool, eventually

SOON = timedelta(seconds=1)


@pytest.fixture
def pool(shared_pool: Pool) -> Pool:
    shared_pool.project.notes_file.write_text("")
    return shared_pool


def runs_of(client: SyncPrefectClient, deployment: UUID, *states: StateType) -> list[FlowRun]:
    return client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states)))
        ),
    )


@pytest.mark.parametrize(
    ("flow", "schedule"),
    [
        ("value", IntervalSchedule(interval=SOON, anchor_date=datetime.now(UTC))),
        pytest.param(
            "pid",
            RRuleSchedule(rrule=f"DTSTART:{datetime.now(UTC):%Y%m%dT%H%M%SZ}\nRRULE:FREQ=SECONDLY"),
            marks=pytest.mark.soak,
        ),
    ],
    ids=["interval", "rrule"],
)
def test_a_schedule_that_is_switched_on_makes_runs_that_complete(
    pool: Pool, flow: str, schedule: IntervalSchedule | RRuleSchedule
):
    deployment = pool.deploy(flow)
    (made,) = pool.client.create_deployment_schedules(deployment, [(schedule, False)])
    assert runs_of(pool.client, deployment, *StateType) == []
    pool.client.update_deployment_schedule(deployment, made.id, active=True)
    eventually(lambda: runs_of(pool.client, deployment, StateType.COMPLETED), 150)
    pool.client.update_deployment_schedule(deployment, made.id, active=False)
    assert pool.project.notes


def test_a_cron_schedule_plans_the_minutes_it_names(pool: Pool):
    deployment = pool.deploy("outer")
    every_minute = DeploymentScheduleCreate(schedule=CronSchedule(cron="* * * * *"))
    pool.client.create_deployment_schedules(deployment, [(every_minute.schedule, True)])
    planned = eventually(lambda: runs_of(pool.client, deployment, StateType.SCHEDULED), 150)
    due = sorted(run.expected_start_time for run in planned if run.expected_start_time)
    assert len(due) >= 3
    gaps = {(later - earlier).total_seconds() for earlier, later in pairwise(due)}
    assert gaps == {60}
