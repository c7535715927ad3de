"""The generation's paths: a flat body of parameters, with switches, and the job that it is."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import JsonValue

from safelight.gateway.job_routes import (
    STREAMED,
    IdempotencyKey,
    cancel_job,
    follow_plainly,
    read_job,
)
from safelight.gateway.jobs import Job
from safelight.gateway.listing import JobFilters, JobPage, filtered_jobs
from safelight.gateway.shared import Everything
from safelight.gateway.steering import Submission
from safelight.gateway.workflows import WorkflowType

router = APIRouter(prefix="/api/generation", tags=["earlier: generation"])


@router.post("", status_code=201)
def submit_generation(
    parameters: dict[str, JsonValue],
    answer: Response,
    shared: Everything,
    key: IdempotencyKey = None,
) -> Job:
    """Draw pictures: parameters of `generate`, with use_controlnet, use_ipadapter,
    use_facedetailer and use_upscale; `character_id` names a character."""
    given = dict(parameters)
    character = given.pop("character_id", None)
    wanted = Submission.model_validate(
        {
            "workflow": WorkflowType.GENERATE.value,
            "parameters": given,
            "character_id": character,
        }
    )
    job = shared.submitter.submit(wanted, key)
    answer.headers["Location"] = f"/api/generation/{job.id}"
    return job


@router.get("")
def list_generations(shared: Everything, wanted: Annotated[JobFilters, Query()]) -> JobPage:
    """Generations, newest first."""
    return filtered_jobs(shared.client, shared.flows, wanted, WorkflowType.GENERATE)


router.get("/{job_id}", name="read_generation")(read_job)
router.post("/{job_id}/cancel", name="cancel_generation")(cancel_job)
router.get(
    "/{job_id}/stream", name="follow_generation", response_class=Response, responses=STREAMED
)(follow_plainly)
