"""The list of jobs: newest first, by pages that a cursor names."""

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterId,
    FlowRunFilterName,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safelight.characters.keeping import find
from safelight.characters.records import ID
from safelight.characters.tags import tag_of
from safelight.errors import InvalidFieldValueError
from safelight.gateway.jobs import STATE_TYPES, Flows, Job, Status, described_all
from safelight.gateway.workflows import WorkflowType, flows_of

LARGEST_PAGE = 100
"""Jobs; below what a Prefect server gives at once."""
LONGEST_CURSOR = 8192
"""Characters."""


class JobPage(BaseModel):
    """Some of the jobs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    total: int
    """How many there are that fit the filters."""
    jobs: list[Job]
    """Newest first."""
    next_cursor: str | None
    """Names the next page; None on the last one."""


class JobFilters(BaseModel):
    """Which jobs are asked for; what is left out is any."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    status: Status | None = None
    """How they stand."""
    character_id: str | None = Field(default=None, min_length=1, max_length=100)
    """Id or name of the character that they are for."""
    text: str | None = Field(default=None, max_length=200)
    """Part of the name, whatever the case."""
    limit: int = Field(default=50, ge=1, le=LARGEST_PAGE)
    """Jobs on a page."""
    cursor: str | None = Field(default=None, max_length=LONGEST_CURSOR)
    """next_cursor of a page."""


class AllFilters(JobFilters):
    """The same over all kinds of work."""

    workflow_type: WorkflowType | None = None
    """Kind of work."""


class _Cursor(BaseModel):
    """Where a page ended: the time of its last job, and which jobs of that very time it had."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: datetime
    seen: list[UUID]


def filtered_jobs(
    client: SyncPrefectClient, flows: Flows, wanted: JobFilters, kind: WorkflowType | None
) -> JobPage:
    """One page of the jobs of a kind that fit the filters of a request.

    Raises:
        PipelineError: as `list_jobs`.
    """
    return list_jobs(
        client,
        flows,
        status=wanted.status,
        kind=kind,
        text=wanted.text,
        limit=wanted.limit,
        cursor=wanted.cursor,
        character=wanted.character_id,
    )


def list_jobs(
    client: SyncPrefectClient,
    flows: Flows,
    *,
    status: Status | None,
    kind: WorkflowType | None,
    text: str | None,
    limit: int,
    cursor: str | None,
    character: str | None = None,
    tags: Sequence[str] = (),
) -> JobPage:
    """One page of the jobs that fit all filters.

    Args:
        client: of the server.
        flows: names of flows.
        status: None is any.
        kind: None is any.
        text: part of the job's name, whatever the case.
        limit: jobs on the page.
        cursor: of an earlier page; None is the first.
        character: name or id of the one that they are for; None is any.
        tags: that they have all of.

    Raises:
        MissingFileError: there is no such character.
        InvalidFieldValueError: the cursor is none of ours.
    """
    start = None if cursor is None else _read(cursor)
    wanted_tags = [*tags, *([_tag(character)] if character else [])]
    of_flows = FlowFilter(name=FlowFilterName(any_=list(flows_of(kind))))
    wanted = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(is_null_=False),
        name=FlowRunFilterName(like_=text) if text else None,
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(STATE_TYPES[status])))
        if status
        else None,
        tags=FlowRunFilterTags(all_=wanted_tags) if wanted_tags else None,
    )
    total = client.count_flow_runs(flow_filter=of_flows, flow_run_filter=wanted)
    if start is not None:
        wanted.expected_start_time = FlowRunFilterExpectedStartTime.model_validate(
            {"before_": start.at}
        )
        wanted.id = FlowRunFilterId(not_any_=start.seen)
    runs = client.read_flow_runs(
        flow_filter=of_flows,
        flow_run_filter=wanted,
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,  # never changes, other than that of the start
        limit=limit + 1,
    )
    shown = runs[:limit]
    return JobPage(
        total=total,
        jobs=described_all(client, flows, shown),
        next_cursor=_written(shown, start) if len(runs) > limit else None,
    )


def after_job(run: FlowRun) -> str | None:
    """The cursor of what comes after a job."""
    return _written([run], None)


def _tag(character: str) -> str:
    """Jobs of one that was deleted are found by its id."""
    return tag_of(character if ID.fullmatch(character) else find(character).id)


def _written(shown: Sequence[FlowRun], start: _Cursor | None) -> str | None:
    at = shown[-1].expected_start_time
    if at is None:
        return None
    seen = [run.id for run in shown if run.expected_start_time == at]
    if start is not None and start.at == at:
        seen = [*start.seen, *seen]
    text = _Cursor(at=at, seen=seen).model_dump_json()
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read(cursor: str) -> _Cursor:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return _Cursor.model_validate_json(text)
    except (binascii.Error, ValidationError, ValueError) as error:
        raise InvalidFieldValueError(
            f"cursor is {cursor[:80]!r}, which no page gave", "take next_cursor of a page"
        ) from error
