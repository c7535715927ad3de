"""The operations of an earlier worker: a flat body, and a stream that ends with [DONE]."""

import json
import re
from collections.abc import AsyncGenerator
from typing import Literal
from uuid import UUID

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field, JsonValue
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from safelight.client.runs import manifest_of
from safelight.errors import ContractMismatchError, MissingRequiredFieldError
from safelight.gateway.correlating import correlation_id
from safelight.gateway.earlier.words import Body, error_text, without_unset
from safelight.gateway.events import JobEvent, Told, stream_schema
from safelight.gateway.files import artifacts_of
from safelight.gateway.finished import as_base64, keep_pixels, pixels_in
from safelight.gateway.job_routes import IdempotencyKey
from safelight.gateway.jobs import Status, find_job, find_run
from safelight.gateway.shared import Everything, Shared
from safelight.gateway.steering import Submission
from safelight.store.store import SCHEME

router = APIRouter(prefix="/v1/jobs", tags=["earlier: operations"])
Operation = Literal["image_generation", "image_transform", "image_inpaint"]
FIELDS: dict[str, tuple[str, ...]] = {
    "image_generation": ("width", "height"),
    "image_transform": ("image", "strength"),
    "image_inpaint": ("image", "mask", "strength"),
}
"""Fields of each operation beside those of all."""
PICTURES = ("image", "mask")
_LINK = re.compile(r"store:\S+|\S*\.(png|jpe?g|webp)", re.IGNORECASE)


class OperationRequest(Body):
    """An operation that is asked for."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "operation": "image_generation",
                    "hive_id": "hive-1",
                    "prompt": "a red house",
                    "seed": 7,
                }
            ]
        }
    )

    operation: Operation
    """What to do."""
    hive_id: str | None = Field(default=None, max_length=100, pattern=r"^[A-Za-z0-9._:-]+$")
    """Whose it is: a tag of the run."""
    worker_id: str | None = Field(default=None, max_length=100, pattern=r"^[A-Za-z0-9._:-]+$")
    """Whom the caller had in mind: a tag of the run, which any worker may take."""
    model: str | None = Field(default=None, max_length=200)
    """Of the models folder; the default where it is left out."""
    prompt: str = Field(max_length=2000)
    """What to draw."""
    negative_prompt: str | None = Field(default=None, max_length=2000)
    """What to avoid."""
    steps: int = 20
    """Denoising steps."""
    guidance_scale: float = 7.5
    """How closely to follow the prompt."""
    width: int | None = None
    """Pixels; 512 for a picture from a prompt."""
    height: int | None = None
    """Pixels; 512 for a picture from a prompt."""
    seed: int | None = None
    """Same seed, same picture."""
    image: str | None = None
    """In base64, a `store:` link, or a path that the worker may read."""
    mask: str | None = None
    """The same; white is painted anew."""
    strength: float | None = None
    """How much is drawn anew, 0 to 1."""


class OperationJob(Body):
    """Where an operation can be followed."""

    job_id: UUID
    """Of the job."""
    sse_url: str
    """Its stream."""


@router.post("", status_code=202)
def submit_operation(
    wanted: OperationRequest, answer: Response, shared: Everything, key: IdempotencyKey = None
) -> OperationJob:
    """Submit an operation."""
    tags = [
        f"{name}:{value}"
        for name, value in (("hive", wanted.hive_id), ("worker", wanted.worker_id))
        if value is not None
    ]
    job = shared.submitter.submit(
        Submission(workflow=wanted.operation, parameters=parameters_of(wanted)), key, tags
    )
    place = f"/v1/jobs/{job.id}/stream"
    answer.headers["Location"] = place
    return OperationJob(job_id=job.id, sse_url=place)


@router.get(
    "/{job_id}/stream",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Progress per step, then the picture, then [DONE].",
            "content": {"text/event-stream": {"schema": stream_schema()}},
        }
    },
)
async def stream_operation(job_id: UUID, request: Request, shared: Everything) -> Response:
    """Follow an operation."""
    await run_in_threadpool(find_run, shared.client, shared.flows, job_id)
    lines = _lines(shared, job_id, correlation_id(request.scope), str(request.base_url).rstrip("/"))
    return StreamingResponse(
        lines, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )


def parameters_of(wanted: OperationRequest) -> dict[str, JsonValue]:
    """Parameters of the operation's flow.

    Raises:
        ContractMismatchError: a field is of another operation.
        MissingRequiredFieldError: a picture is missing.
    """
    own = FIELDS[wanted.operation]
    given = without_unset(wanted.model_dump(exclude={"operation", "hive_id", "worker_id"}))
    others = {name for fields in FIELDS.values() for name in fields} - set(own)
    for name in others & given.keys():
        raise ContractMismatchError(
            f"{wanted.operation} takes no {name}", f"leave {name} out of the request"
        )
    for name in PICTURES:
        if name in own and name not in given:
            raise MissingRequiredFieldError(f"{name} is missing", f"give {name} a value")
        if name in given:
            given[name] = _placed(str(given[name]), name)
    if wanted.operation == "image_generation":
        given = {"width": 512, "height": 512, **given}
    return given


def _placed(picture: str, field: str) -> str:
    """A picture as jobs take it: bytes in base64 are kept, a place stays."""
    if picture.startswith(SCHEME) or _LINK.fullmatch(picture):
        return picture
    return keep_pixels(pixels_in(picture, field))


async def _lines(
    shared: Shared, job_id: UUID, correlation: str, base: str
) -> AsyncGenerator[bytes]:
    async for heard in shared.following.news(job_id, Told(), correlation):
        if heard is None:
            yield b": still here\n\n"
        elif heard.kind == "complete":
            yield _said(await run_sync(_end, shared, job_id, correlation, base))
        elif isinstance(heard.event, JobEvent):
            yield _said(_step(heard.event, correlation))
    yield b"data: [DONE]\n\n"


def _said(body: dict[str, JsonValue]) -> bytes:
    return f"data: {json.dumps(without_unset(body))}\n\n".encode()


def _step(event: JobEvent, correlation: str) -> dict[str, JsonValue]:
    return {
        "type": "progress",
        "job_id": str(event.job_id),
        "correlation_id": correlation,
        "status": event.status.value.lower(),
        "progress": event.progress,
        "stage": event.stage or None,
        "step": event.step,
        "total_steps": event.steps,
    }


def _end(shared: Shared, job_id: UUID, correlation: str, base: str) -> dict[str, JsonValue]:
    job = find_job(shared.client, shared.flows, job_id)
    said: dict[str, JsonValue] = {
        "type": "complete",
        "job_id": str(job_id),
        "correlation_id": correlation,
        "status": job.status.value.lower(),
        "progress": job.progress,
        "error": error_text(job),
    }
    manifest = manifest_of(job_id) if job.status is Status.SUCCEEDED else None
    if manifest is not None and manifest.results:
        ref = manifest.results[0]
        urls = {each.id: each.url for each in artifacts_of(job_id).artifacts}
        said |= {"image": as_base64(ref), "url": base + urls[ref.sha256]}
        said["images"] = [base + urls[each.sha256] for each in manifest.results]
    return said
