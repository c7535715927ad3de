"""Routes of batches: their results as one zip, which can be taken up where a download broke off."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Request, Response
from starlette.responses import StreamingResponse

from safelight.errors import InvalidFieldValueError, MissingFileError
from safelight.exports.facts import batch_results
from safelight.exports.parts import LONGEST_NAME, part
from safelight.exports.placing import disposition, named
from safelight.exports.zips import Zip, plan_zip
from safelight.gateway.files import RANGE, names_tag, template_of
from safelight.gateway.job_routes import Names
from safelight.gateway.problems import UnknownJobError
from safelight.provenance.batches import load_report

router = APIRouter(prefix="/api/batches", tags=["batches"])


@router.head("/{batch_id}/zip", include_in_schema=False, response_class=Response)
@router.get(
    "/{batch_id}/zip",
    response_class=StreamingResponse,
    responses={
        200: {"description": "The zip.", "content": {"application/zip": {}}},
        206: {"description": "The part of it that Range names."},
        304: {"description": "The caller has it."},
        416: {"description": "It is shorter than Range says."},
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
    first, _, last = wanted.strip().partition("-")
    if first:
        start, stop = int(first), min(int(last) + 1 if last else planned.size, planned.size)
    else:
        start, stop = max(0, planned.size - int(last)), planned.size
    if start >= stop:
        return Response(
            status_code=416, headers={**headers, "Content-Range": f"bytes */{planned.size}"}
        )
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
