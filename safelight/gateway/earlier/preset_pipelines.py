"""The preset pipelines' paths: presets, and pictures drawn by one."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ConfigDict, Field, JsonValue

from safelight.errors import ContractMismatchError
from safelight.gateway import offers
from safelight.gateway.earlier.words import (
    STATUSES,
    Body,
    EarlierArtifact,
    Lowercase,
    earlier_artifacts,
    error_text,
    result_url,
)
from safelight.gateway.estimates import expected_seconds
from safelight.gateway.job_routes import IdempotencyKey
from safelight.gateway.jobs import Job, find_job
from safelight.gateway.problems import refused_request
from safelight.gateway.shared import Everything, Shared
from safelight.gateway.steering import Submission


class _Mismatching(APIRoute):
    """A body that does not fit is CONTRACT_MISMATCH there, whatever of it does not."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                if not any(each["loc"][0] == "body" for each in error.errors()):
                    raise
                known = refused_request(error.errors())
                raise ContractMismatchError(known.problem, known.remedy) from error

        return handled


router = APIRouter(
    prefix="/api/pipeline", tags=["earlier: preset pipelines"], route_class=_Mismatching
)


class EarlierPreset(Body):
    """A preset."""

    id: str
    """What a request names."""
    name: str
    """Title."""
    description: str
    """One or two sentences."""
    category: str
    """Shelf it stands on."""
    required_inputs: list[str]
    """Inputs that must be given."""
    optional_inputs: list[str]
    """Inputs that may be left out."""
    engine_requirements: list[str]
    """Engines in order of preference."""
    quality_levels: list[str]
    """low, standard, pro."""


class EarlierPresetDetails(EarlierPreset):
    """A preset with its steps."""

    steps: list[offers.PresetStep]
    """In order, with the quality levels at which they run."""
    safety_notes: list[str]
    """What to keep in mind."""
    requires_consent: str
    """When consent_given has to be true: never, with_reference, always."""
    failure_modes: dict[str, str]
    """Error code to what to do."""


class PictureRequest(Body):
    """A picture that is to be drawn by a preset."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "preset_id": "photoreal_portrait_v1",
                    "prompt": "a sailor",
                    "quality_level": "low",
                    "seed": 7,
                }
            ]
        }
    )

    preset_id: str = Field(max_length=100)
    """Which preset."""
    prompt: str = Field(max_length=2000)
    """What to draw."""
    quality_level: str = Field(default="standard", max_length=40)
    """low, standard, pro."""
    negative_prompt: str | None = Field(default=None, max_length=2000)
    """What to avoid; that of the preset where it is left out."""
    seed: int | None = None
    """Same seed, same picture."""
    identity_reference: list[str] | None = Field(default=None, max_length=3)
    """Photographs of a person."""
    consent_given: bool = False
    """Whether the person agreed."""


class PipelineJob(Body):
    """A job of a preset."""

    job_id: UUID
    """Of the job."""
    status: Lowercase
    """How it stands."""
    preset_id: str
    """Which preset."""
    estimated_time_seconds: float | None
    """As the last jobs of the preset took; null where none has ended."""
    output_url: str | None
    """Where its result can be downloaded."""
    error: str | None
    """Why it failed."""


class PipelineProgress(PipelineJob):
    """The same while it goes on."""

    progress: float
    """0 to 1."""


class PipelineArtifacts(Body):
    """Files of a job."""

    job_id: UUID
    """Of the job."""
    total_artifacts: int
    """How many."""
    artifacts: list[EarlierArtifact]
    """In order."""


@router.get("/presets")
def list_earlier_presets(
    category: Annotated[str | None, Query(description="Shelf they stand on.")] = None,
    engine: Annotated[str | None, Query(description="Engine they may use.")] = None,
) -> list[EarlierPreset]:
    """All presets."""
    return [
        EarlierPreset(**_card(card), engine_requirements=card.engines)
        for card in offers.presets(category, engine).presets
    ]


@router.get("/presets/{preset_id}")
def read_earlier_preset(preset_id: str) -> EarlierPresetDetails:
    """One preset."""
    found = offers.preset(preset_id)
    return EarlierPresetDetails(
        **_card(found),
        engine_requirements=found.engines,
        steps=found.steps,
        safety_notes=found.safety_notes,
        requires_consent=found.consent,
        failure_modes=found.failure_modes,
    )


def _card(card: offers.PresetCard) -> dict[str, Any]:
    names = set(EarlierPreset.model_fields) - {"engine_requirements"}
    return card.model_dump(include=names)


@router.post("/generate/image", status_code=202)
def draw_by_preset(
    wanted: PictureRequest, answer: Response, shared: Everything, key: IdempotencyKey = None
) -> PipelineJob:
    """Have a picture drawn by a preset."""
    preset = offers.preset(wanted.preset_id)
    job = shared.submitter.submit(
        Submission(workflow=preset.id, parameters=_parameters(wanted, preset)), key
    )
    answer.headers["Location"] = f"/api/pipeline/jobs/{job.id}"
    return PipelineJob(**_stands(shared, job))


@router.get("/jobs/{job_id}")
def read_pipeline_job(job_id: UUID, shared: Everything) -> PipelineProgress:
    """How a job stands."""
    job = find_job(shared.client, shared.flows, job_id)
    return PipelineProgress(**_stands(shared, job), progress=job.progress / 100)


@router.get("/jobs/{job_id}/artifacts")
def list_pipeline_artifacts(job_id: UUID, shared: Everything) -> PipelineArtifacts:
    """The files of a job."""
    found = earlier_artifacts(find_job(shared.client, shared.flows, job_id))
    return PipelineArtifacts(job_id=job_id, total_artifacts=len(found), artifacts=found)


def _stands(shared: Shared, job: Job) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "status": STATUSES[job.status],
        "preset_id": job.workflow,
        "estimated_time_seconds": expected_seconds(shared.client, job.workflow),
        "output_url": result_url(job),
        "error": error_text(job),
    }


def _parameters(wanted: PictureRequest, preset: offers.PresetDetails) -> dict[str, JsonValue]:
    """Parameters of the preset's flow; what it draws with takes the negative prompt.

    Raises:
        ContractMismatchError: it draws with none.
    """
    found: dict[str, JsonValue] = {
        "prompt": wanted.prompt,
        "quality": wanted.quality_level,
        "seed": wanted.seed,
        "identity_reference": None
        if wanted.identity_reference is None
        else [*wanted.identity_reference],
        "consent_given": wanted.consent_given or None,
    }
    if wanted.negative_prompt is not None:
        step = _drawing_step(preset, wanted.quality_level)
        if step is None:
            raise ContractMismatchError(
                f"{preset.id} takes no negative_prompt", "leave negative_prompt out"
            )
        found["overrides"] = {step: {"negative_prompt": wanted.negative_prompt}}
    return {name: value for name, value in found.items() if value is not None}


def _drawing_step(preset: offers.PresetDetails, quality: str) -> str | None:
    level = preset.levels.get(quality)
    steps = level.items() if isinstance(level, dict) else ()
    return next(
        (name for name, of in steps if isinstance(of, dict) and "negative_prompt" in of), None
    )
