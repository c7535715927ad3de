"""Routes of jobs."""

from collections.abc import AsyncGenerator
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from safelight.exports.template import LONGEST_TEMPLATE
from safelight.gallery.thumbnails import Side
from safelight.gateway.correlating import correlation_id
from safelight.gateway.events import PLAIN, USUAL, JobEvent, Kind, Told, stream_schema
from safelight.gateway.files import Artifacts, artifacts_of, download, result_of
from safelight.gateway.jobs import Job, find_job, find_run
from safelight.gateway.listing import AllFilters, JobPage, filtered_jobs
from safelight.gateway.problems import Problem
from safelight.gateway.shared import Everything
from safelight.gateway.steering import Reason, Submission, cancel, retry
from safelight.gateway.thumbnails import thumbnail_answer
from safelight.gateway.trail import Audit, Level, LogPage, audit_of, log_of

LARGEST_LOG_PAGE = 150
"""Lines; below what a Prefect server gives at once."""
NO_REASON = Reason()
FILE_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", "content": {"application/octet-stream": {}}},
    206: {"description": "The part of it that Range names."},
    304: {"description": "The caller has it."},
    416: {"model": Problem, "description": "It is shorter than Range says."},
}
"""Of routes that give a file out."""
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`progress`, `stage` and `preview` events while the job goes on, `log` "
        "where it is wanted, and one `complete`; the data of `progress` and the last is this.",
        "content": {"text/event-stream": {"schema": stream_schema(JobEvent.model_json_schema())}},
    },
    204: {"description": "The job has ended, and the listener knows that."},
}
router = APIRouter(prefix="/api/jobs", tags=["jobs"])
Sha256 = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="Of the file.")]
Names = Annotated[
    str | None,
    Query(max_length=LONGEST_TEMPLATE, description="Template of the names that files get."),
]
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", description="Where to go on.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]+$",
        max_length=200,
        description="The same request with the same key is one job.",
    ),
]


@router.post("", status_code=201)
def submit_job(
    wanted: Submission, answer: Response, shared: Everything, key: IdempotencyKey = None
) -> Job:
    """Submit a job: a preset, an operation or a pipeline, with its parameters."""
    job = shared.submitter.submit(wanted, key)
    answer.headers["Location"] = f"/api/jobs/{job.id}"
    return job


@router.get("")
def list_all_jobs(shared: Everything, wanted: Annotated[AllFilters, Query()]) -> JobPage:
    """Jobs, newest first."""
    return filtered_jobs(shared.client, shared.flows, wanted, wanted.workflow_type)


@router.get("/{job_id}")
def read_job(job_id: UUID, shared: Everything) -> Job:
    """One job."""
    return find_job(shared.client, shared.flows, job_id)


@router.post("/{job_id}/cancel")
def cancel_job(job_id: UUID, shared: Everything, reason: Reason = NO_REASON) -> Job:
    """Cancel a job that is QUEUED or RUNNING; it stops at its next step."""
    return cancel(shared.client, shared.flows, job_id, reason.reason)


@router.post("/{job_id}/retry")
def retry_job(job_id: UUID, shared: Everything, reason: Reason = NO_REASON) -> Job:
    """Have a job that is FAILED run again."""
    return retry(shared.client, shared.flows, job_id, reason.reason)


@router.get("/{job_id}/audit")
def read_audit(job_id: UUID, shared: Everything) -> Audit:
    """All transitions of a job."""
    run, _ = find_run(shared.client, shared.flows, job_id)
    return audit_of(shared.client, run)


@router.get("/{job_id}/logs")
def read_logs(
    job_id: UUID,
    shared: Everything,
    level: Annotated[Level, Query(description="The least that is shown.")] = "INFO",
    after: Annotated[int, Query(ge=0, le=10**9, description="Lines that are known.")] = 0,
    limit: Annotated[int, Query(ge=1, le=LARGEST_LOG_PAGE, description="Lines.")] = 100,
) -> LogPage:
    """The log of a job."""
    run, _ = find_run(shared.client, shared.flows, job_id)
    return log_of(shared.client, run, level, after, limit)


@router.get(
    "/{job_id}/events",
    response_class=StreamingResponse,
    responses=STREAMED,
)
async def follow_job(
    job_id: UUID,
    request: Request,
    shared: Everything,
    log: Annotated[bool, Query(description="Whether the job's log is told too.")] = False,
    previews: Annotated[bool, Query(description="Whether pictures are shown.")] = True,
    last_event_id: LastEventId = None,
) -> Response:
    """Follow a job by server-sent events."""
    shown: frozenset[Kind] = frozenset() if previews else frozenset({"preview"})
    read: frozenset[Kind] = frozenset({"log"}) if log else frozenset()
    return await _followed(job_id, request, shared, last_event_id, (USUAL - shown) | read)


async def follow_plainly(
    job_id: UUID, request: Request, shared: Everything, last_event_id: LastEventId = None
) -> Response:
    """Follow a job by server-sent events: `progress`, and one `complete`."""
    return await _followed(job_id, request, shared, last_event_id, PLAIN)


async def _followed(
    job_id: UUID,
    request: Request,
    shared: Everything,
    last_event_id: str | None,
    kinds: frozenset[Kind],
) -> Response:
    told = Told.read(last_event_id)
    run = await shared.following.require(shared.flows, job_id)
    if run is not None and told.states and run.state is not None and run.state.is_final():
        states = await run_in_threadpool(shared.client.read_flow_run_states, job_id)
        if told.states >= len(states):
            return Response(status_code=204)  # the standard's way to end a listener
    events: AsyncGenerator[bytes, None] = shared.following.events(
        job_id, told, correlation_id(request.scope), kinds
    )
    return StreamingResponse(
        events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )


@router.get("/{job_id}/artifacts")
def list_artifacts(job_id: UUID, shared: Everything) -> Artifacts:
    """The files that a job has made so far."""
    find_run(shared.client, shared.flows, job_id)
    return artifacts_of(job_id)


@router.head("/{job_id}/artifacts/{sha256}", include_in_schema=False, response_class=Response)
@router.get("/{job_id}/artifacts/{sha256}", response_class=Response, responses=FILE_ANSWERS)
def download_artifact(
    job_id: UUID,
    sha256: Sha256,
    shared: Everything,
    names: Names = None,
    wanted_range: Annotated[str | None, Header(alias="Range")] = None,
    known_tags: Annotated[str | None, Header(alias="If-None-Match")] = None,
) -> Response:
    """Download a file that a job has made."""
    find_run(shared.client, shared.flows, job_id)
    return download(job_id, sha256, names, wanted_range, known_tags)


@router.get(
    "/{job_id}/artifacts/{sha256}/thumbnail",
    response_class=Response,
    responses={
        200: {"description": "A small WebP.", "content": {"image/webp": {}}},
        304: {"description": "The caller has it."},
    },
)
def read_thumbnail(
    job_id: UUID,
    sha256: Sha256,
    shared: Everything,
    side: Annotated[Side, Query(description="The longer side, in pixels.")] = "256",
    known_tags: Annotated[str | None, Header(alias="If-None-Match")] = None,
) -> Response:
    """A thumbnail of a picture or video that a job has made."""
    find_run(shared.client, shared.flows, job_id)
    return thumbnail_answer(result_of(job_id, sha256)[0].ref, side, known_tags)
