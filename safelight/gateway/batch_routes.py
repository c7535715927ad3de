"""Routes of batches: their results as one zip, which can be taken up where a download broke off."""

import csv
import io
from collections.abc import Iterator
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, JsonValue
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from safelight.client.requests import table_type
from safelight.errors import InvalidFieldValueError, MissingFileError
from safelight.exports.facts import batch_results
from safelight.exports.parts import LONGEST_NAME, part
from safelight.exports.placing import disposition, named
from safelight.exports.zips import Zip, plan_zip
from safelight.gateway.files import (
    BINARY,
    RANGE,
    bounds,
    download,
    names_tag,
    require_file,
    template_of,
)
from safelight.gateway.job_routes import (
    FILE_ANSWERS,
    NO_REASON,
    IdempotencyKey,
    Names,
    Sha256,
)
from safelight.gateway.jobs import Job, find_job
from safelight.gateway.listing import JobFilters, JobPage, filtered_jobs
from safelight.gateway.problems import Problem, UnknownJobError
from safelight.gateway.shared import Everything, Shared
from safelight.gateway.steering import Reason, Submission, cancel
from safelight.gateway.workflows import WorkflowType, flow_named
from safelight.provenance.batches import BatchOutcome, BatchReport, load_report
from safelight.store.store import current_store

router = APIRouter(prefix="/api/batches", tags=["batches"])
CHUNK = 2**16
"""Characters of CSV at once."""
MOST_ROWS = 2000
"""Of one page of a table."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Batch(_Frozen):
    """A batch."""

    job: Job
    """Its own run."""
    counts: dict[str, JsonValue]
    """How many requests ended in which way; empty before the first ended."""
    failures: list[JsonValue]
    """Requests that failed, each with code, problem and remedy."""


class Row(_Frozen):
    """One request of a batch."""

    number: int
    """From 1."""
    where: str
    """Line, request or cell."""
    state: str
    """succeeded, failed, crashed, cancelled."""
    job_id: str
    """Of its run; of a request that shared a run with others, the id of its manifest."""
    seconds: float
    """How long it took."""
    reused: bool
    """Whether an earlier run had finished it."""
    cost_usd: float
    """What its calls to providers cost."""
    error_code: str
    """Why it failed."""
    results: list[str]
    """Where its files can be downloaded."""


class Table(_Frozen):
    """Requests of a batch that have ended."""

    total: int
    """How many have."""
    next: int | None
    """Where the next page begins; null on the last."""
    rows: list[Row]
    """In their order."""


class StoredTable(_Frozen):
    """A table of requests in the store."""

    uri: str
    """`store:` link: the parameter `file` of a batch takes it."""
    media_type: str
    """Under which it is kept."""
    rows: int
    """Requests in it; more where a row names several seeds."""


@router.post("", status_code=201)
def submit_batch(
    parameters: dict[str, JsonValue],
    answer: Response,
    shared: Everything,
    key: IdempotencyKey = None,
) -> Job:
    """Submit a batch: the body holds the parameters of the flow `batch`."""
    wanted = Submission(workflow=WorkflowType.BATCH.value, parameters=parameters)
    job = shared.submitter.submit(wanted, key)
    answer.headers["Location"] = f"{router.prefix}/{job.id}"
    return job


@router.post(
    "/tables",
    status_code=201,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {BINARY: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload_table(
    request: Request,
    flow: Annotated[str, Query(max_length=200, description="Whose parameters it names.")],
    prompts: Annotated[bool, Query(description="Whether its lines may be prompts.")] = False,
    content_type: Annotated[str, Header(description=BINARY)] = "",
) -> StoredTable:
    """Keep a table of requests for a batch, once it is read: the body is the file itself."""
    require_file(content_type, ())
    data = b"".join([chunk async for chunk in request.stream()])
    return await run_in_threadpool(_kept_table, flow_named(flow), data, prompts=prompts)


def _kept_table(flow: str, data: bytes, *, prompts: bool) -> StoredTable:
    media_type, rows = table_type(flow, data, prompts=prompts)
    stored = current_store().put(data, media_type, folder="uploads")
    current_store().settle()
    return StoredTable(uri=stored.uri, media_type=media_type, rows=rows)


@router.get("")
def list_batches(shared: Everything, wanted: Annotated[JobFilters, Query()]) -> JobPage:
    """Batches, newest first."""
    return filtered_jobs(shared.client, shared.flows, wanted, WorkflowType.BATCH)


@router.get("/{batch_id}")
def read_batch(batch_id: UUID, shared: Everything) -> Batch:
    """One batch: how it stands, and what of it failed."""
    job, report = _found(batch_id, shared)
    if report is None:
        return Batch(job=job, counts={}, failures=[])
    return Batch(job=job, counts=report.counts(), failures=report.failures())


@router.post("/{batch_id}/cancel")
def cancel_batch(batch_id: UUID, shared: Everything, reason: Reason = NO_REASON) -> Job:
    """Cancel a batch with all its requests."""
    _found(batch_id, shared)
    return cancel(shared.client, shared.flows, batch_id, reason.reason)


@router.get(
    "/{batch_id}/table",
    response_model=Table,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def read_table(
    batch_id: UUID,
    shared: Everything,
    form: Annotated[Literal["json", "csv"], Query(description="Of the answer.")] = "json",
    first: Annotated[
        int, Query(ge=0, le=10**9, description="Of JSON: where the page begins, from 0.")
    ] = 0,
    limit: Annotated[
        int, Query(ge=1, le=MOST_ROWS, description="Of JSON: rows of the page.")
    ] = MOST_ROWS,
) -> Response | Table:
    """The requests of a batch that have ended, as JSON in pages, or all as CSV."""
    _, report = _found(batch_id, shared)
    if form == "csv":
        saved = {"Content-Disposition": disposition(f"{batch_id}.csv", "attachment")}
        return StreamingResponse(_lines(batch_id, report), media_type="text/csv", headers=saved)
    if report is None:
        return Table(total=0, next=None, rows=[])
    rows = [_row(batch_id, outcome) for outcome in report.page(first, limit)]
    total, end = report.tally().ended, first + len(rows)
    return Table(total=total, next=end if rows and end < total else None, rows=rows)


def _lines(batch_id: UUID, report: BatchReport | None) -> Iterator[str]:
    """The table as CSV, some rows at a time."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(Row.model_fields)
    for outcome in report.each() if report is not None else ():
        row = _row(batch_id, outcome)
        said = {**row.model_dump(), "results": " ".join(row.results)}
        writer.writerow([_plain(value) for value in said.values()])
        if out.tell() > CHUNK:
            yield out.getvalue()
            out.seek(0)
            out.truncate()
    yield out.getvalue()


@router.head("/{batch_id}/artifacts/{sha256}", include_in_schema=False, response_class=Response)
@router.get("/{batch_id}/artifacts/{sha256}", response_class=Response, responses=FILE_ANSWERS)
def download_batch_artifact(
    batch_id: UUID,
    sha256: Sha256,
    shared: Everything,
    names: Names = None,
    wanted_range: Annotated[str | None, Header(alias="Range")] = None,
    known_tags: Annotated[str | None, Header(alias="If-None-Match")] = None,
) -> Response:
    """Download a file that a request of a batch has made, also one that shared a run."""
    _, report = _found(batch_id, shared)
    run = None if report is None else report.made_by(sha256)
    if run is None:
        raise MissingFileError(
            f"batch {batch_id} has no artifact {sha256}",
            f"take an address of {router.prefix}/{batch_id}/table",
        )
    return download(UUID(run), sha256, names, wanted_range, known_tags)


def _found(batch_id: UUID, shared: Shared) -> tuple[Job, BatchReport | None]:
    """A batch and its report.

    Raises:
        UnknownJobError: there is none of this id.
    """
    job = find_job(shared.client, shared.flows, batch_id)
    if job.workflow_type is not WorkflowType.BATCH:
        raise UnknownJobError(
            f"job {batch_id} is no batch", "take the id of one that /api/batches lists"
        )
    try:
        return job, load_report(batch_id)
    except MissingFileError:
        return job, None


def _row(batch_id: UUID, outcome: BatchOutcome) -> Row:
    return Row(
        number=outcome.number,
        where=outcome.where,
        state=outcome.state,
        job_id=outcome.flow_run_id,
        seconds=outcome.seconds,
        reused=outcome.reused,
        cost_usd=outcome.cost_usd,
        error_code="" if outcome.error is None else outcome.error.code,
        results=[f"{router.prefix}/{batch_id}/artifacts/{ref.sha256}" for ref in outcome.results],
    )


def _plain(value: object) -> object:
    """A cell that no spreadsheet takes for a formula."""
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(("=", "+", "-", "@")) else value


@router.head("/{batch_id}/zip", include_in_schema=False, response_class=Response)
@router.get(
    "/{batch_id}/zip",
    response_class=StreamingResponse,
    responses={
        200: {"description": "The zip.", "content": {"application/zip": {}}},
        206: {"description": "The part of it that Range names."},
        304: {"description": "The caller has it."},
        416: {"model": Problem, "description": "It is shorter than Range says."},
    },
)
def download_zip(
    batch_id: UUID,
    request: Request,
    names: Names = None,
    wanted_range: Annotated[str | None, Header(alias="Range")] = None,
    only_of: Annotated[str | None, Header(alias="If-Range")] = None,
    known_tags: Annotated[str | None, Header(alias="If-None-Match")] = None,
) -> Response:
    """Download all results of a batch's run as one zip; the same results are the same bytes."""
    try:
        report = load_report(batch_id)
    except MissingFileError as error:
        raise UnknownJobError(
            f"no batch with the id {batch_id} has ended", "take the id of a run of batch"
        ) from error
    template = template_of(names, report.flow)
    if wanted_range is not None and not RANGE.fullmatch(wanted_range.strip()):
        raise InvalidFieldValueError(
            f"Range is {wanted_range[:80]!r}, expected bytes=FIRST-LAST", "correct the header Range"
        )
    planned = plan_zip(named(batch_results(report), template), report)
    tag = f'"{planned.digest}"'
    name = part(f"{report.flow}-{report.batch}", LONGEST_NAME)
    headers = {
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": disposition(f"{name}.zip", "attachment"),
    }
    if known_tags is not None and names_tag(known_tags, tag):
        return Response(status_code=304, headers=headers)
    planned.require_all()
    if request.method == "HEAD":
        return Response(headers={**headers, "Content-Length": str(planned.size)})
    if wanted_range is None or (only_of is not None and only_of != tag):
        return _sent(planned, 0, planned.size, headers)
    return _part(planned, wanted_range.strip().removeprefix("bytes="), headers)


def _part(planned: Zip, wanted: str, headers: dict[str, str]) -> Response:
    """One range; several at once are answered with the whole, as they may be."""
    if "," in wanted:
        return _sent(planned, 0, planned.size, headers)
    start, stop = bounds(wanted, planned.size)
    said = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{planned.size}"}
    return _sent(planned, start, stop, said, status=206)


def _sent(
    planned: Zip, start: int, stop: int, headers: dict[str, str], status: int = 200
) -> Response:
    return StreamingResponse(
        planned.chunks(start, stop),
        status,
        {**headers, "Content-Length": str(stop - start)},
        media_type="application/zip",
    )
