"""What the earlier systems called things: statuses, artifacts, files."""

from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from safelight.client.runs import manifest_of
from safelight.gateway.files import artifacts_of
from safelight.gateway.jobs import Job, Status
from safelight.provenance.manifest import Failure, Manifest
from safelight.store.artifact import ArtifactRef
from safelight.store.store import SCHEME

DONE_TO = {
    "animate": "animated",
    "blend": "blended",
    "deflicker": "deflickered",
    "denoise": "denoised",
    "detail": "detailed",
    "enhance": "enhanced",
    "generate": "generated",
    "grade": "graded",
    "inpaint": "inpainted",
    "interpolate": "interpolated",
    "lipsync": "lipsynced",
    "refine": "refined",
    "transform": "transformed",
    "upscale": "upscaled",
}
"""Stage to what its result is; any other stage stands for itself."""
Lowercase = Literal["queued", "running", "completed", "failed"]
STATUSES: dict[Status, Lowercase] = {
    Status.QUEUED: "queued",
    Status.RUNNING: "running",
    Status.SUCCEEDED: "completed",
    Status.FAILED: "failed",
    Status.CANCELLED: "failed",
}
"""Where there were four; a job that was cancelled says so in its error."""


class Body(BaseModel):
    """A body of the earlier systems."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class EarlierArtifact(Body):
    """A file that a job made."""

    id: str
    """sha256 of its bytes."""
    artifact_type: str
    """What it is: interpolated_video, enhanced_image, ..."""
    file_path: str
    """Below the volume root, or the store's prefix."""
    file_size_bytes: int
    """Bytes."""
    metadata_json: dict[str, JsonValue]
    """How it was made."""


class EarlierJob(Body):
    """A job of the media lab."""

    id: str
    """Of the job."""
    character_id: str | None
    """Of the character that it is for."""
    workflow_type: str
    """enhance, interpolate, generate, blend."""
    status: Status
    """How it stands."""
    progress: float
    """0 to 100."""
    error_message: str | None
    """Why it failed."""
    artifacts: list[EarlierArtifact]
    """Its results."""
    created_at: datetime | None
    """UTC."""
    updated_at: datetime | None
    """UTC."""


def artifacts_in(manifest: Manifest | None) -> list[EarlierArtifact]:
    """The results of a run, or what was made before it failed."""
    if manifest is None:
        return []
    made_by = {ref.sha256: entry.stage_type for entry in manifest.stages for ref in entry.results}
    refs = {ref.sha256: ref for ref in (*manifest.results, *manifest.shown)}
    return [_artifact(ref, made_by.get(ref.sha256, manifest.flow)) for ref in refs.values()]


def _artifact(ref: ArtifactRef, stage: str) -> EarlierArtifact:
    return EarlierArtifact(
        id=ref.sha256,
        artifact_type=f"{DONE_TO.get(stage, stage)}_{ref.kind}",
        file_path=str(PurePosixPath(ref.uri.removeprefix(SCHEME))),
        file_size_bytes=ref.bytes,
        metadata_json=dict(ref.metadata),
    )


def earlier_artifacts(job: Job) -> list[EarlierArtifact]:
    """The results of a job so far."""
    return [] if job.status is Status.QUEUED else artifacts_in(manifest_of(job.id))


def earlier_job(job: Job) -> EarlierJob:
    """A job as the media lab said it."""
    return EarlierJob(
        id=str(job.id),
        character_id=job.character_id,
        workflow_type=job.workflow_type.value,
        status=job.status,
        progress=job.progress,
        error_message=error_text(job),
        artifacts=earlier_artifacts(job),
        created_at=job.created_at,
        updated_at=job.updated_at,
    )


def error_text(job: Job) -> str | None:
    """Why a job did not succeed, in one sentence."""
    if job.error is not None:
        return failure_text(job.error)
    if job.status is Status.CANCELLED:
        return job.message or "cancelled"
    return None


def failure_text(failure: Failure) -> str:
    """Code, what was found, what to do."""
    return f"[{failure.code}] {failure.problem}. Fix: {failure.remedy}"


def result_url(job: Job) -> str | None:
    """Where the first result of a job is."""
    found = artifacts_of(job.id).artifacts if job.status is Status.SUCCEEDED else []
    return next((each.url for each in found if each.role == "result"), None)


def without_unset(body: dict[str, Any]) -> dict[str, Any]:
    """Fields that have a value: those that are unset were left out of JSON."""
    return {name: value for name, value in body.items() if value is not None}
