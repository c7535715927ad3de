"""The room Jobs: a live table, and a drawer that says what happened and what to do."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from safelight.client.contracts import Described
from safelight.client.runs import manifest_of
from safelight.gallery.index import gallery
from safelight.gallery.rows import Filed, Ran, StageTime
from safelight.gateway.jobs import Job, Status, find_job, find_run
from safelight.gateway.listing import LONGEST_CURSOR, list_jobs
from safelight.gateway.page.bars import Piece, bar_of
from safelight.gateway.page.create_routes import current_of
from safelight.gateway.page.estimating import estimate
from safelight.gateway.page.frame_routes import counted
from safelight.gateway.page.problems import PageRoute
from safelight.gateway.page.reading import typed
from safelight.gateway.page.remedies import with_remedy
from safelight.gateway.page.rendering import shown_page, shown_part
from safelight.gateway.page.shelf import title_of
from safelight.gateway.shared import Everything, Shared
from safelight.gateway.steering import Submission, cancel, retry
from safelight.gateway.trail import Level, audit_of, log_of
from safelight.gateway.workflows import WorkflowType, contract_of

router = APIRouter(prefix="/jobs", include_in_schema=False, route_class=PageRoute)
PAGE = 50
LINES = 150
LATE = timedelta(seconds=15)
"""After its end, lines of a run may still come: they travel in bulk."""
Text = Annotated[str, Query(max_length=200)]
Cursor = Annotated[str | None, Query(max_length=LONGEST_CURSOR)]


class Asked(BaseModel):
    """A press of a button."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    room: Literal["jobs", "create"] = "jobs"


class Chosen(Asked):
    """A press of a button that runs a failed job again with a change."""

    remedy: Annotated[str, Field(max_length=40)]


@dataclass(frozen=True)
class Row:
    """One job in the table."""

    job: Job
    title: str
    picture: Filed | None
    bar: list[Piece]
    took: float | None


@dataclass(frozen=True)
class Filters:
    """What is shown of all jobs."""

    status: Status | None
    kind: WorkflowType | None
    text: str

    def query(self, **others: str | None) -> dict[str, str]:
        """As the address says it."""
        own = {"status": self.status, "kind": self.kind, "text": self.text or None}
        return {name: str(value) for name, value in {**own, **others}.items() if value}


@router.get("")
def show(
    request: Request,
    shared: Everything,
    status: Status | None = None,
    kind: WorkflowType | None = None,
    text: Text = "",
    job: UUID | None = None,
) -> Response:
    """The table, with the drawer of the job that the address names."""
    filters = Filters(status, kind, text)
    return shown_page(
        request,
        "jobs",
        "jobs",
        filters=filters,
        counts={each.value: counted(shared, each) for each in Status},
        kinds=list(WorkflowType),
        drawer=None if job is None else _drawer(shared, job),
        **_rows(shared, filters, None),
    )


@router.get("/rows")
def rows(
    request: Request,
    shared: Everything,
    status: Status | None = None,
    kind: WorkflowType | None = None,
    text: Text = "",
    cursor: Cursor = None,
    seen: Text = "",
) -> Response:
    """Rows of the table; nothing where they are those that the browser has."""
    found = _rows(shared, Filters(status, kind, text), cursor)
    if seen and seen == found["digest"]:
        return Response(status_code=204)
    return shown_part(request, "rows", status=200, **found)


@router.get("/{job_id}/drawer")
def drawer(job_id: UUID, request: Request, shared: Everything) -> Response:
    """What happened to a job, and what can be done."""
    return shown_part(request, "job", drawer=_drawer(shared, job_id))


@router.get("/{job_id}/log")
def log(
    job_id: UUID,
    request: Request,
    shared: Everything,
    level: Level = "INFO",
    seen: Annotated[int, Query(ge=-1)] = -1,
) -> Response:
    """Lines of its log; nothing where as many were seen already and more may come."""
    run, _ = find_run(shared.client, shared.flows, job_id)
    page = log_of(shared.client, run, level, 0, LINES)
    grows = run.end_time is None or datetime.now(UTC) - run.end_time < LATE
    if grows and seen == len(page.lines):
        return Response(status_code=204)
    return shown_part(request, "log", page=page, job_id=job_id, level=level, grows=grows)


@router.get("/{job_id}/states")
def states(job_id: UUID, request: Request, shared: Everything) -> Response:
    """What it came to, and when."""
    run, _ = find_run(shared.client, shared.flows, job_id)
    return shown_part(request, "states", audit=audit_of(shared.client, run))


@router.post("/{job_id}/cancel")
def stop(job_id: UUID, asked: Asked, request: Request, shared: Everything) -> Response:
    """Stop it at its next step."""
    cancel(shared.client, shared.flows, job_id, "")
    return _after(asked, request, shared, job_id)


@router.post("/{job_id}/retry")
def again(job_id: UUID, asked: Asked, request: Request, shared: Everything) -> Response:
    """Have it run again; what its stages finished is taken from the store."""
    retry(shared.client, shared.flows, job_id, "")
    return _after(asked, request, shared, job_id)


@router.post("/{job_id}/remedy")
def mend(job_id: UUID, asked: Chosen, request: Request, shared: Everything) -> Response:
    """Run a failed job again as its remedy says: a new job with a change."""
    job = find_job(shared.client, shared.flows, job_id)
    wanted = Submission(workflow=job.workflow, parameters=with_remedy(job, asked.remedy))
    made = shared.submitter.submit(wanted, None)
    if asked.room == "create":  # the form is another one then
        address = urlencode({**typed(made.parameters, _described(made)), "job": str(made.id)})
        return Response(headers={"HX-Redirect": f"/create/{made.workflow}?{address}"})
    answer = _after(asked, request, shared, made.id)
    answer.headers["HX-Push-Url"] = f"/jobs?job={made.id}"
    return answer


def _described(job: Job) -> Described:
    return contract_of(job.workflow).described


def _after(asked: Asked, request: Request, shared: Shared, job_id: UUID) -> Response:
    if asked.room == "create":
        job = find_job(shared.client, shared.flows, job_id)
        return shown_part(request, "run", current=current_of(job))
    return shown_part(request, "job", drawer=_drawer(shared, job_id))


def _rows(shared: Shared, filters: Filters, cursor: str | None) -> dict[str, object]:
    page = list_jobs(
        shared.client,
        shared.flows,
        status=filters.status,
        kind=filters.kind,
        text=filters.text or None,
        limit=PAGE,
        cursor=cursor,
    )
    index = gallery()
    index.refresh(wait=index.is_empty())
    ids = [str(job.id) for job in page.jobs]
    ran, pictures = index.ran(ids), index.first_of_runs(ids)
    flows = {job.workflow for job in page.jobs}
    expected = {flow: estimate(index, flow, {}).stages for flow in flows}
    found = [_row(job, ran.get(str(job.id)), pictures, expected[job.workflow]) for job in page.jobs]
    told = "".join(f"{row.job.id}{row.job.state}{row.job.progress}{row.picture}" for row in found)
    return {
        "rows": found,
        "total": page.total,
        "here": filters.query(cursor=cursor),
        "next": filters.query(cursor=page.next_cursor) if page.next_cursor else None,
        "digest": hashlib.sha256(f"{told}{page.total}".encode()).hexdigest()[:16],
        "first": cursor is None,
    }


def _row(
    job: Job, ran: Ran | None, pictures: Mapping[str, Filed], expected: Sequence[StageTime]
) -> Row:
    took = None
    if job.started_at is not None and job.ended_at is not None:
        took = (job.ended_at - job.started_at).total_seconds()
    picture = pictures.get(str(job.id))
    seen = picture if picture is not None and picture.kind in ("image", "video") else None
    return Row(job, title_of(job.workflow), seen, bar_of(job, ran, expected), took)


def _drawer(shared: Shared, job_id: UUID) -> dict[str, object]:
    job = find_job(shared.client, shared.flows, job_id)
    current = current_of(job)
    manifest = None if job.status in (Status.QUEUED, Status.RUNNING) else manifest_of(job_id)
    changed = typed(job.parameters, _described(job))
    server = shared.client.api_url
    return {
        "current": current,
        "job": job,
        "changed": changed,
        "ways": current.ways,
        "manifest": manifest,
        "entries": list(manifest.stages) if manifest else [],
        "prefect": f"{str(server).rstrip('/').removesuffix('/api')}/runs/flow-run/{job.id}",
    }
