"""The media lab's paths: jobs for a character, pipelines that are waited for, models."""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response
from pydantic import ConfigDict, Field, JsonValue

from safelight.client.runs import manifest_of
from safelight.errors import InvalidFieldValueError
from safelight.gateway.earlier.words import (
    Body,
    EarlierArtifact,
    EarlierJob,
    artifacts_in,
    earlier_artifacts,
    earlier_job,
    error_text,
    failure_text,
)
from safelight.gateway.finished import ended
from safelight.gateway.job_routes import NO_REASON, IdempotencyKey
from safelight.gateway.jobs import Status, find_job
from safelight.gateway.listing import LARGEST_PAGE, AllFilters, filtered_jobs
from safelight.gateway.offers import models
from safelight.gateway.shared import Everything
from safelight.gateway.steering import Reason, Submission, cancel, retry
from safelight.gateway.workflows import PIPELINE
from safelight.provenance.manifest import RunResult

router = APIRouter(prefix="/api/media-lab", tags=["earlier: media lab"])
Kind = Literal["enhance", "interpolate", "generate", "blend"]
ModelType = Literal["checkpoint", "lora", "embedding"]
OURS: Mapping[str, str] = {
    "source_image_path": "image",
    "source_video_path": "video",
    "mask_path": "mask",
}
"""Names of inputs there to ours."""


class LabRequest(Body):
    """A job that is asked for."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "workflow_type": "enhance",
                    "parameters": {
                        "source_image_path": "uploads/photo.png",
                        "quality_preset": "low",
                    },
                }
            ]
        }
    )

    character_id: str | None = Field(default=None, min_length=1, max_length=100)
    """Of the character that it is for."""
    workflow_type: Kind
    """What to do."""
    parameters: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    """source_image_path, quality_preset; source_video_path, source_fps, target_fps; ..."""


class LabJobs(Body):
    """Jobs of the media lab."""

    total: int
    """How many fit the filters."""
    jobs: list[EarlierJob]
    """Newest first."""


class LabFilters(AllFilters):
    """Which jobs are asked for."""

    limit: int = Field(default=LARGEST_PAGE, ge=1, le=LARGEST_PAGE)
    """Jobs on a page."""


class LabArtifacts(Body):
    """Files of a job."""

    job_id: UUID
    """Of the job."""
    total_artifacts: int
    """How many."""
    artifacts: list[EarlierArtifact]
    """In order."""


class LabStage(Body):
    """A stage of a pipeline."""

    stage_type: str = Field(max_length=64)
    """text_to_image, refiner, detailer, upscaler, or a stage of ours."""
    name: str | None = Field(default=None, max_length=64)
    """What it is called; its type where it is left out."""
    parameters: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    """Of the stage."""


class LabPipeline(Body):
    """Stages, each of which reads the one before it."""

    stages: list[LabStage] = Field(min_length=1, max_length=200)
    """In order."""
    parameters: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    """For all of them."""


class LabCall(Body):
    """A pipeline that is to run."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "pipeline_config": {
                        "stages": [{"stage_type": "text_to_image"}, {"stage_type": "upscaler"}]
                    },
                    "input_data": {"prompt": "a red house"},
                }
            ]
        }
    )

    pipeline_config: LabPipeline
    """What runs."""
    input_data: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    """Wins over all parameters."""


class LabResult(Body):
    """What came of a pipeline."""

    job_id: UUID
    """Of the job."""
    success: bool
    """Whether it came to its end."""
    data: dict[str, JsonValue]
    """Flow, run, seeds, manifest."""
    artifacts: list[EarlierArtifact]
    """Results, or what was made before it failed."""
    metadata: dict[str, dict[str, JsonValue]]
    """Facts of each stage, by its name."""
    error: str | None
    """Why it did not."""


class LabModel(Body):
    """A model of this machine."""

    name: str
    """What people call it."""
    model_type: str
    """checkpoint, lora, embedding."""
    file_path: str
    """Where it lies."""
    file_size_bytes: int
    """Bytes."""
    discovered_at: str
    """ISO 8601."""
    description: str
    """What it is good at."""
    tags: list[str]
    """Words to find it by."""
    metadata: dict[str, JsonValue]
    """What else is known."""


class LabModels(Body):
    """Models of this machine."""

    total: int
    """How many."""
    models: list[LabModel]
    """By name."""


@router.post("/jobs", status_code=201)
def submit_lab_job(
    wanted: LabRequest, answer: Response, shared: Everything, key: IdempotencyKey = None
) -> EarlierJob:
    """Submit a job for a character."""
    parameters = in_our_words(wanted.parameters)
    job = shared.submitter.submit(
        Submission(
            workflow=wanted.workflow_type, parameters=parameters, character_id=wanted.character_id
        ),
        key,
    )
    answer.headers["Location"] = f"/api/media-lab/jobs/{job.id}"
    return earlier_job(job)


@router.get("/jobs")
def list_lab_jobs(
    request: Request,
    answer: Response,
    shared: Everything,
    wanted: Annotated[LabFilters, Query()],
) -> LabJobs:
    """Jobs, newest first; where there are more than 100, the header Link names the next page."""
    page = filtered_jobs(shared.client, shared.flows, wanted, wanted.workflow_type)
    if page.next_cursor is not None:
        following = request.url.include_query_params(cursor=page.next_cursor)
        answer.headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    return LabJobs(total=page.total, jobs=[earlier_job(job) for job in page.jobs])


@router.get("/jobs/{job_id}")
def read_lab_job(job_id: UUID, shared: Everything) -> EarlierJob:
    """One job, with its artifacts."""
    return earlier_job(find_job(shared.client, shared.flows, job_id))


@router.post("/jobs/{job_id}/cancel")
def cancel_lab_job(job_id: UUID, shared: Everything, reason: Reason = NO_REASON) -> EarlierJob:
    """Cancel a job that is QUEUED or RUNNING."""
    return earlier_job(cancel(shared.client, shared.flows, job_id, reason.reason))


@router.post("/jobs/{job_id}/retry")
def retry_lab_job(job_id: UUID, shared: Everything, reason: Reason = NO_REASON) -> EarlierJob:
    """Have a job that is FAILED run again."""
    return earlier_job(retry(shared.client, shared.flows, job_id, reason.reason))


@router.get("/jobs/{job_id}/artifacts")
def list_lab_artifacts(job_id: UUID, shared: Everything) -> LabArtifacts:
    """The files of a job."""
    found = earlier_artifacts(find_job(shared.client, shared.flows, job_id))
    return LabArtifacts(job_id=job_id, total_artifacts=len(found), artifacts=found)


@router.post("/generate")
async def run_lab_pipeline(
    wanted: LabCall, shared: Everything, key: IdempotencyKey = None
) -> LabResult:
    """Run a pipeline; answers when it has ended, however it did."""
    job = await ended(shared, PIPELINE, pipeline_of(wanted), key)
    manifest = await run_sync(manifest_of, job.id)
    said = None if manifest is None else RunResult.of(manifest)
    succeeded = job.status is Status.SUCCEEDED and said is not None and said.success
    why = error_text(job) or (failure_text(said.error) if said and said.error else None)
    return LabResult(
        job_id=job.id,
        success=succeeded,
        data={} if said is None else said.data,
        artifacts=artifacts_in(manifest),
        metadata={} if said is None else said.metadata,
        error=None if succeeded else why or job.message or "it left no manifest",
    )


@router.post("/enhance")
async def run_lab_enhancement(
    wanted: LabCall, shared: Everything, key: IdempotencyKey = None
) -> LabResult:
    """Run a pipeline over a picture; the same as `/generate`."""
    return await run_lab_pipeline(wanted, shared, key)


@router.get("/models")
def list_lab_models(
    model_type: Annotated[str | None, Query(description="checkpoint, lora, embedding")] = None,
) -> LabModels:
    """Models of this machine."""
    known = ("checkpoint", "lora", "embedding")
    if model_type is not None and model_type not in known:
        raise InvalidFieldValueError(
            f"model_type is {model_type[:80]!r}, expected one of {', '.join(known)}",
            "correct model_type",
        )
    found = [m for m in models(model_type).models if m.model_type in known]
    listed = [
        LabModel.model_validate(m.model_dump(mode="json", include=set(LabModel.model_fields)))
        for m in found
    ]
    return LabModels(total=len(listed), models=listed)


def in_our_words(parameters: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Parameters of the media lab by our names.

    Raises:
        InvalidFieldValueError: one is given by both names.
    """
    for theirs, ours in OURS.items():
        if theirs in parameters and ours in parameters:
            raise InvalidFieldValueError(f"{theirs} and {ours} are both given", f"leave {ours} out")
    return {OURS.get(name, name): value for name, value in parameters.items()}


def pipeline_of(wanted: LabCall) -> dict[str, JsonValue]:
    """Parameters of our pipeline; stages without a name get that of their type."""
    types = Counter(stage.stage_type for stage in wanted.pipeline_config.stages)
    seen: Counter[str] = Counter()
    stages: list[dict[str, Any]] = []
    for stage in wanted.pipeline_config.stages:
        seen[stage.stage_type] += 1
        number = f"_{seen[stage.stage_type]}" if types[stage.stage_type] > 1 else ""
        stages.append(
            {
                "stage_type": stage.stage_type,
                "name": stage.name or f"{stage.stage_type}{number}",
                "parameters": stage.parameters,
            }
        )
    return {
        "stages": [*stages],
        "parameters": dict(wanted.pipeline_config.parameters),
        "call_input": in_our_words(wanted.input_data),
    }
