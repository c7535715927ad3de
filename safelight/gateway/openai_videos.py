"""OpenAI's videos: drawn from a prompt and set in motion, or a picture that is set in motion.

A video is a job: a run of `pipeline` that was submitted here, which its tag says.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from uuid import UUID

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request, Response
from prefect.client.schemas.objects import FlowRun
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from safelight.audit.log import record
from safelight.errors import (
    ContractMismatchError,
    InvalidFieldValueError,
    MissingFileError,
    MissingRequiredFieldError,
)
from safelight.gateway.files import artifacts_of, download, result_of
from safelight.gateway.finished import keep_pixels, refuse_others
from safelight.gateway.forms import FORM, Form, is_form, read_form
from safelight.gateway.job_routes import IdempotencyKey
from safelight.gateway.jobs import Job, Status, described_all, find_run
from safelight.gateway.listing import after_job, list_jobs
from safelight.gateway.openai_routes import THEIRS, sides
from safelight.gateway.problems import Problem, UnknownJobError, refused_request
from safelight.gateway.shared import Everything, Shared
from safelight.gateway.steering import CANCELLABLE, Submission, cancel
from safelight.gateway.thumbnails import thumbnail_answer
from safelight.gateway.workflows import PIPELINE, WorkflowType
from safelight.media.fitting import resized
from safelight.media.images import decode_still
from safelight.media.layers import on_white
from safelight.provenance.manifest import MANIFESTS
from safelight.store.store import current_store

router = APIRouter(prefix="/v1/videos", tags=["OpenAI"])
TAG = "openai:video"
THEIRS_MOVING = ("sora-2", "sora-2-pro")
DEFAULT_SIZE = "720x1280"
DEFAULT_SECONDS = "4"
DRAW, MOVE = "draw", "move"
"""Stages of such a job."""
STATES: dict[Status, Literal["queued", "in_progress", "completed", "failed"]] = {
    Status.QUEUED: "queued",
    Status.RUNNING: "in_progress",
    Status.SUCCEEDED: "completed",
    Status.FAILED: "failed",
    Status.CANCELLED: "failed",
}


class VideoWanted(BaseModel):
    """A video that is asked for."""

    model_config = ConfigDict(extra="allow")

    prompt: str = Field(min_length=1, max_length=2000)
    """What to draw."""
    model: str | None = Field(default=None, max_length=200)
    """A model of the models folder that draws the first picture; one of OpenAI's is the default."""
    seconds: str = Field(default=DEFAULT_SECONDS, pattern=r"^\d{1,2}(\.\d)?$")
    """2 to 5."""
    size: str = Field(default=DEFAULT_SIZE, max_length=20)
    """WIDTHxHEIGHT, multiples of 8."""
    seed: int | None = None
    """Not of OpenAI."""


class VideoError(BaseModel):
    """Why a video failed."""

    code: str
    """Of the error."""
    message: str
    """What was found and what to do."""


class Video(BaseModel):
    """A video."""

    id: str
    """Of the job."""
    object: Literal["video"] = "video"
    """What it is."""
    created_at: int
    """Seconds since 1970."""
    completed_at: int | None
    """The same."""
    expires_at: int | None = None
    """Never by itself."""
    status: Literal["queued", "in_progress", "completed", "failed"]
    """How it stands."""
    progress: int
    """0 to 100."""
    model: str
    """That draws."""
    prompt: str | None
    """What is drawn."""
    seconds: str
    """How long it is."""
    size: str
    """WIDTHxHEIGHT."""
    error: VideoError | None
    """Why it failed."""
    remixed_from_video_id: str | None = None
    """Not done here."""


class VideoPage(BaseModel):
    """Some videos."""

    object: Literal["list"] = "list"
    """What it is."""
    data: list[Video]
    """Newest first."""
    first_id: str | None
    """Of the first."""
    last_id: str | None
    """Of the last."""
    has_more: bool
    """Whether there are more."""


class DeletedVideo(BaseModel):
    """A video that is gone."""

    id: str
    """Of what was there."""
    object: Literal["video.deleted"] = "video.deleted"
    """What it is."""
    deleted: Literal[True] = True
    """Whether it is gone."""


_FIELDS: dict[str, Any] = {
    "prompt": {"type": "string", "minLength": 1, "maxLength": 2000},
    "model": {"type": "string"},
    "seconds": {"type": "string"},
    "size": {"type": "string"},
    "seed": {"type": "integer"},
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            FORM: {
                "schema": {
                    "type": "object",
                    "required": ["prompt"],
                    "properties": {
                        **_FIELDS,
                        "input_reference": {"type": "string", "format": "binary"},
                    },
                }
            },
            "application/json": {
                "schema": {"type": "object", "required": ["prompt"], "properties": _FIELDS}
            },
        },
    }
}


@router.post("", openapi_extra=_BODY)
async def create_video(
    request: Request,
    shared: Everything,
    content_type: Annotated[str, Header(description="A form, or JSON.")] = "",
    key: IdempotencyKey = None,
) -> Video:
    """Have a video made; answers at once."""
    with current_store().workspace() as folder:
        form = await _sent(request, content_type, Path(folder))
        picture = form.named("input_reference")
        parameters = await run_sync(video_parameters, _wanted(form.fields), picture)
    wanted = Submission(workflow=PIPELINE, parameters=parameters)
    job = await run_sync(shared.submitter.submit, wanted, key, [TAG])
    return _shown(job)


@router.get("")
def list_videos(
    shared: Everything,
    after: Annotated[UUID | None, Query(description="Id of the last one that is known.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="On a page.")] = 20,
    order: Annotated[Literal["desc"], Query(description="Newest first.")] = "desc",
) -> VideoPage:
    """Videos that were asked for here, newest first."""
    del order
    page = list_jobs(
        shared.client,
        shared.flows,
        status=None,
        kind=WorkflowType.PIPELINE,
        text=None,
        limit=limit,
        cursor=None if after is None else after_job(_found(after, shared)[0]),
        tags=[TAG],
    )
    found = [_shown(job) for job in page.jobs]
    return VideoPage(
        data=found,
        first_id=found[0].id if found else None,
        last_id=found[-1].id if found else None,
        has_more=page.next_cursor is not None,
    )


@router.get("/{video_id}")
def read_video(video_id: UUID, shared: Everything) -> Video:
    """One video."""
    return _shown(_found(video_id, shared)[1])


@router.delete("/{video_id}")
def delete_video(video_id: UUID, shared: Everything) -> DeletedVideo:
    """Forget a video: its job and its manifest; the file goes when the store is tidied."""
    _, job = _found(video_id, shared)
    if job.status in CANCELLABLE:
        cancel(shared.client, shared.flows, video_id, "the video was deleted")
    record("job.deleted", str(video_id))
    shared.client.delete_flow_run(video_id)
    current_store().backend.delete(f"{MANIFESTS}{video_id}.json")
    return DeletedVideo(id=str(video_id))


@router.get(
    "/{video_id}/content",
    response_class=Response,
    responses={
        200: {"description": "The file.", "content": {"video/mp4": {}, "image/webp": {}}},
        206: {"description": "The part of it that Range names."},
        304: {"description": "The caller has it."},
        416: {"model": Problem, "description": "It is shorter than Range says."},
    },
)
def download_video(
    video_id: UUID,
    shared: Everything,
    variant: Annotated[
        Literal["video", "thumbnail"], Query(description="The video, or a picture of it.")
    ] = "video",
    wanted_range: Annotated[str | None, Header(alias="Range")] = None,
    known_tags: Annotated[str | None, Header(alias="If-None-Match")] = None,
) -> Response:
    """The file of a video that is completed."""
    _found(video_id, shared)
    results = [each for each in artifacts_of(video_id).artifacts if each.role == "result"]
    if not results:
        raise MissingFileError(
            f"video {video_id} is not completed", "ask how it stands, and come again then"
        )
    if variant == "thumbnail":
        return thumbnail_answer(result_of(video_id, results[0].id)[0].ref, "512", known_tags)
    return download(video_id, results[0].id, None, wanted_range, known_tags)


def video_parameters(wanted: VideoWanted, picture: Path | None) -> dict[str, JsonValue]:
    """Parameters of the pipeline that makes a video.

    Raises:
        ContractMismatchError: a field asks for what is not done here.
        InvalidFieldValueError: the size or the length is none.
        InvalidMediaError: the file is no picture.
    """
    refuse_others(wanted.model_extra or {}, {})
    width, height = sides(wanted.size)
    seconds = float(wanted.seconds)
    if not 2 <= seconds <= 5:
        raise InvalidFieldValueError(
            f"seconds is {wanted.seconds}, expected 2 to 5", "ask for a shorter video"
        )
    move: dict[str, JsonValue] = {
        "stage_type": "animate",
        "name": MOVE,
        "parameters": {"prompt": wanted.prompt, "duration": seconds},
    }
    found: dict[str, JsonValue] = {} if wanted.seed is None else {"seed": wanted.seed}
    if picture is not None:
        pixels = resized(on_white(decode_still(picture.read_bytes()).pixels), width, height)
        return {**found, "stages": [move], "call_input": {"image": keep_pixels(pixels)}}
    drawn: dict[str, JsonValue] = {"prompt": wanted.prompt, "width": width, "height": height}
    if wanted.model is not None and not _is_theirs(wanted.model):
        drawn["model"] = wanted.model
    draw: dict[str, JsonValue] = {"stage_type": "generate", "name": DRAW, "parameters": drawn}
    return {**found, "stages": [draw, move]}


def _is_theirs(model: str) -> bool:
    return model.startswith(THEIRS_MOVING) or THEIRS.fullmatch(model) is not None


async def _sent(request: Request, content_type: str, folder: Path) -> Form:
    """What came as a form, or as JSON."""
    if is_form(content_type):
        return await read_form(request, folder)
    try:
        body = await request.json()
    except ValueError as error:
        raise InvalidFieldValueError(
            f"the body is not JSON: {error}", "correct the body"
        ) from error
    if not isinstance(body, dict):
        raise MissingRequiredFieldError("prompt is missing", "send an object with a prompt")
    given = cast("dict[str, Any]", body)
    if "input_reference" in given:
        raise ContractMismatchError(
            "input_reference is in a body of JSON", "send it as a file of a form"
        )
    return Form(given, [])


def _wanted(fields: Mapping[str, Any]) -> VideoWanted:
    try:
        return VideoWanted.model_validate(fields)
    except ValidationError as error:
        found = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
        raise refused_request(found) from error


def _found(video_id: UUID, shared: Shared) -> tuple[FlowRun, Job]:
    run, _ = find_run(shared.client, shared.flows, video_id)
    if TAG not in run.tags:
        raise UnknownJobError(f"there is no video {video_id}", "take an id of /v1/videos")
    return run, described_all(shared.client, shared.flows, [run])[0]


def _shown(job: Job) -> Video:
    stages = _stages(job.parameters.get("stages"))
    draw, move = stages.get(DRAW, {}), stages.get(MOVE, {})
    failed = job.error
    cancelled = job.status is Status.CANCELLED
    return Video(
        id=str(job.id),
        created_at=0 if job.created_at is None else int(job.created_at.timestamp()),
        completed_at=int(job.ended_at.timestamp()) if job.ended_at else None,
        status=STATES[job.status],
        progress=int(job.progress),
        model=str(draw.get("model") or "default"),
        prompt=str(move.get("prompt", "")),
        seconds=f"{float(str(move.get('duration', DEFAULT_SECONDS))):g}",
        size=f"{draw['width']}x{draw['height']}" if draw else "auto",
        error=VideoError(code=failed.code, message=f"{failed.problem}. Fix: {failed.remedy}")
        if failed
        else VideoError(code="CANCELLED", message=job.message)
        if cancelled
        else None,
    )


def _stages(given: JsonValue) -> dict[str, Mapping[str, JsonValue]]:
    """Parameters of each stage by its name."""
    listed = cast("Sequence[Mapping[str, Any]]", given if isinstance(given, list) else [])
    return {str(stage.get("name")): dict(stage.get("parameters") or {}) for stage in listed}
