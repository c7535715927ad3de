"""Routes of uploads: at once, or in parts by the protocol tus 1.0 (https://tus.io)."""

from email.utils import formatdate
from time import time
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from safelight.errors import MissingRequiredFieldError
from safelight.gateway.files import BINARY, Stored, keep_upload, require_file
from safelight.gateway.guard import UPLOAD_BYTES
from safelight.gateway.problems import (
    BodyTooLongError,
    ContentTypeError,
    TusVersionError,
    UnfinishedUploadError,
)
from safelight.gateway.shared import Everything
from safelight.gateway.uploading import (
    ALGORITHMS,
    KEPT_SECONDS,
    Upload,
    read_checksum,
    read_metadata,
)

router = APIRouter(prefix="/api/uploads", tags=["files"])
TUS = "1.0.0"
PART = "application/offset+octet-stream"
EXTENSIONS = "creation,checksum,expiration,termination"
RESUMABLE = "/resumable/{upload_id}"
UploadId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="Of the upload.")]
Version = Annotated[str, Header(alias="Tus-Resumable", description="1.0.0")]


def _bytes(kind: str) -> dict[str, Any]:
    content = {kind: {"schema": {"type": "string", "format": "binary"}}}
    return {"requestBody": {"required": True, "content": content}}


@router.post("", status_code=201, openapi_extra=_bytes(BINARY))
async def upload_file(
    request: Request,
    content_type: Annotated[str, Header(description="Of the file, or octet-stream.")] = "",
    sha256: Annotated[
        str | None,
        Query(pattern=r"^[0-9a-f]{64}$", description="What the bytes should have."),
    ] = None,
) -> Stored:
    """Keep a picture, video or sound: the body is the file itself."""
    require_file(content_type)
    return await keep_upload(request.stream(), sha256)


@router.options("/resumable", status_code=204)
def describe_uploads() -> Response:
    """What of the protocol is spoken here."""
    return Response(
        status_code=204,
        headers={
            **_own(),
            "Tus-Version": TUS,
            "Tus-Extension": EXTENSIONS,
            "Tus-Max-Size": str(UPLOAD_BYTES),
            "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
        },
    )


@router.post("/resumable", status_code=201, response_class=Response)
def begin_upload(
    shared: Everything,
    tus_resumable: Version = "",
    upload_length: Annotated[
        int | None, Header(ge=1, description="Bytes that the file has.")
    ] = None,
    upload_metadata: Annotated[
        str, Header(max_length=4096, description="Names with values in base64, also sha256.")
    ] = "",
) -> Response:
    """Begin an upload in parts; the header Location says where they go."""
    _require_version(tus_resumable)
    if upload_length is None:
        raise MissingRequiredFieldError("Upload-Length is missing", "send the header Upload-Length")
    if upload_length > UPLOAD_BYTES:
        raise BodyTooLongError(
            f"the file has {upload_length} bytes, at most {UPLOAD_BYTES} are taken", "send less"
        )
    made = shared.uploads.create(upload_length, read_metadata(upload_metadata))
    place = f"{router.prefix}/resumable/{made.id}"
    return Response(status_code=201, headers={**_stands(made, 0), "Location": place})


@router.head(RESUMABLE, response_class=Response)
def ask_upload(upload_id: UploadId, shared: Everything, tus_resumable: Version = "") -> Response:
    """How many bytes of an upload have come."""
    _require_version(tus_resumable)
    found, known = shared.uploads.find(upload_id)
    return Response(
        headers={**_stands(found, known), "Upload-Length": str(found.length)}, media_type=None
    )


@router.patch(RESUMABLE, status_code=204, response_class=Response, openapi_extra=_bytes(PART))
async def add_part(
    upload_id: UploadId,
    request: Request,
    shared: Everything,
    tus_resumable: Version = "",
    content_type: Annotated[str, Header(description=PART)] = "",
    upload_offset: Annotated[int, Header(ge=0, description="Where the part begins.")] = 0,
    upload_checksum: Annotated[
        str | None, Header(max_length=200, description="Algorithm, and a digest in base64.")
    ] = None,
) -> Response:
    """Add a part; after the last one the file is looked into, and kept."""
    _require_version(tus_resumable)
    if content_type.partition(";")[0].strip().lower() != PART:
        raise ContentTypeError(
            f"the content type is {content_type[:80] or 'not given'}, expected {PART}",
            f"send the header Content-Type: {PART}",
        )
    checksum = None if upload_checksum is None else read_checksum(upload_checksum)
    found, known = await shared.uploads.add(upload_id, upload_offset, request.stream(), checksum)
    return Response(status_code=204, headers=_stands(found, known))


@router.get(RESUMABLE)
def read_upload(upload_id: UploadId, shared: Everything) -> Stored:
    """What became of an upload: the `store:` link of its file; 409 while parts are missing."""
    found, known = shared.uploads.find(upload_id)
    if found.stored is None:
        raise UnfinishedUploadError(
            f"the upload has {known} of {found.length} bytes", f"go on at {known}"
        )
    return found.stored


@router.delete(RESUMABLE, status_code=204, response_class=Response)
async def end_upload(
    upload_id: UploadId, shared: Everything, tus_resumable: Version = ""
) -> Response:
    """End an upload, and forget what has come."""
    _require_version(tus_resumable)
    await run_in_threadpool(shared.uploads.end, upload_id)
    return Response(status_code=204, headers=_own())


def _own() -> dict[str, str]:
    return {"Tus-Resumable": TUS}


def _stands(upload: Upload, known: int) -> dict[str, str]:
    ends = {} if upload.stored is not None else {"Upload-Expires": _http_date(KEPT_SECONDS)}
    link = {} if upload.stored is None else {"Safelight-Uri": upload.stored.uri}
    return {**_own(), "Upload-Offset": str(known), **ends, **link}


def _http_date(seconds: float) -> str:
    return formatdate(time() + seconds, usegmt=True)


def _require_version(said: str) -> None:
    if said != TUS:
        raise TusVersionError(
            f"Tus-Resumable is {said[:20] or 'not given'}, expected {TUS}",
            f"send the header Tus-Resumable: {TUS}",
        )
