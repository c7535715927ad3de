"""What happened to a job: its states as an audit trail, and its log."""

import logging
from datetime import datetime
from typing import Literal
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId, LogFilterLevel
from prefect.client.schemas.objects import FlowRun, Log
from prefect.client.schemas.sorting import LogSort
from pydantic import BaseModel, ConfigDict, JsonValue

from safelight.audit.log import lines, log_folder
from safelight.gateway.jobs import Status, status_of

ACTIONS = ("job.submit", "job.cancel", "job.retry", "consent.given")
Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Details(_Frozen):
    """What is known of a transition."""

    state: str
    """In Prefect's words."""
    message: str
    """What was said with it, also why somebody asked for it."""


class AuditEvent(_Frozen):
    """One transition of a job."""

    id: UUID
    """Of the state."""
    job_id: UUID
    """Of the job."""
    event_type: Status
    """What it came to."""
    actor: str | None
    """Who created the job, for the first; None where Prefect keeps nobody."""
    details: Details
    """More of it."""
    created_at: datetime
    """When."""


class Action(_Frozen):
    """What somebody did to a job."""

    event_type: str
    """What: submitted, cancelled, retried, or a consent that was given."""
    actor: str
    """Who."""
    details: dict[str, JsonValue]
    """More of it."""
    created_at: datetime
    """When."""


class Audit(_Frozen):
    """All transitions of a job, and who did what to it."""

    job_id: UUID
    """Of the job."""
    total: int
    """How many there are."""
    events: list[AuditEvent]
    """The first one first."""
    actions: list[Action]
    """From the audit log, the first one first."""


class LogLine(_Frozen):
    """One record."""

    at: datetime
    """When."""
    level: str
    """DEBUG, INFO, WARNING, ERROR or CRITICAL."""
    logger: str
    """Who says it."""
    message: str
    """What."""


class LogPage(_Frozen):
    """Some of a job's log."""

    job_id: UUID
    """Of the job."""
    lines: list[LogLine]
    """The first one first."""
    next_after: int
    """Lines up to the end of this page; ask with `after` set to it for what comes then."""
    more: bool
    """Whether there are more at the moment."""


def audit_of(client: SyncPrefectClient, run: FlowRun) -> Audit:
    """All transitions of a run."""
    states = client.read_flow_run_states(run.id)
    creator = run.created_by.display_value if run.created_by else None
    events = [
        AuditEvent(
            id=state.id,
            job_id=run.id,
            event_type=status_of(state),
            actor=creator if at == 0 else None,
            details=Details(state=state.name or state.type.value, message=state.message or ""),
            created_at=state.timestamp,
        )
        for at, state in enumerate(states)
    ]
    return Audit(job_id=run.id, total=len(events), events=events, actions=actions_on(run))


def actions_on(run: FlowRun) -> list[Action]:
    """What people and keys did to a run, as the audit log has it."""
    return [
        Action(
            event_type=line.event_type,
            actor=line.actor,
            details=line.details,
            created_at=line.at,
        )
        for line in lines(log_folder(), about=str(run.id), since=run.created)
        if line.event_type in ACTIONS
    ]


def log_of(
    client: SyncPrefectClient, run: FlowRun, level: Level, after: int, limit: int
) -> LogPage:
    """Some of a run's log.

    Args:
        client: of the server.
        run: the run.
        level: the least that is shown.
        after: lines that are left out, as they were read before.
        limit: lines of the page, fewer than a server gives at once.
    """
    found = client.read_logs(
        LogFilter(
            flow_run_id=LogFilterFlowRunId(any_=[run.id]),
            level=LogFilterLevel(ge_=logging.getLevelNamesMapping()[level]),
        ),
        limit=limit + 1,
        offset=after,
        sort=LogSort.TIMESTAMP_ASC,
    )
    shown = found[:limit]
    lines = [line_of(log) for log in shown]
    return LogPage(
        job_id=run.id, lines=lines, next_after=after + len(shown), more=len(found) > limit
    )


def line_of(log: Log) -> LogLine:
    """A record of Prefect's as a line."""
    return LogLine(
        at=log.timestamp,
        level=logging.getLevelName(log.level),
        logger=log.name,
        message=log.message,
    )
