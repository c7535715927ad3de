"""Routes of characters, and of the trainings that jobs are."""

from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from starlette.concurrency import run_in_threadpool

from safelight.characters import keeping
from safelight.characters.forgetting import delete
from safelight.characters.records import Character, CharacterPicture, Tombstone
from safelight.characters.versions import LoraVersion, list_versions
from safelight.errors import MissingRequiredFieldError
from safelight.gateway.files import BINARY, arrived, require_file
from safelight.gateway.forms import FORM, is_form, read_form
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
from safelight.gateway.workflows import TRAINING, WorkflowType
from safelight.store.store import current_store

router = APIRouter(prefix="/api/characters", tags=["characters"])
training = APIRouter(prefix="/api/training", tags=["training"])
_BYTES = {
    "requestBody": {
        "required": True,
        "content": {
            BINARY: {"schema": {"type": "string", "format": "binary"}},
            FORM: {
                "schema": {
                    "type": "object",
                    "properties": {"files": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class NewCharacter(_Asked):
    """A character that is to be made."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "Zorbo", "kind": "thing", "style": "flat colours"}]
        }
    )

    name: str = Field(max_length=100)
    """What people call it."""
    kind: Literal["person", "thing"] = "person"
    """Pictures of a person show one face, and need consent."""
    style: str = Field(default="", max_length=1000)
    """Added to prompts that show it."""
    trigger: str | None = Field(default=None, max_length=100)
    """The word for it; None makes one."""
    consent_given: bool = False
    """Whether the person agreed."""
    consent_by: str | None = Field(default=None, min_length=1, max_length=200)
    """Who says so."""


class Changes(_Asked):
    """What of a character is to change; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"style": "oil paint"}]})

    name: str | None = Field(default=None, max_length=100)
    """What people call it."""
    style: str | None = Field(default=None, max_length=1000)
    """Added to prompts that show it."""
    trigger: str | None = Field(default=None, max_length=100)
    """The word for it."""


class Characters(_Asked):
    """All characters."""

    total: int
    """How many there are."""
    characters: list[Character]
    """By name."""


class Pictures(_Asked):
    """The reference pictures of a character."""

    total: int
    """How many there are."""
    images: list[CharacterPicture]
    """In the order in which they came."""


class Versions(_Asked):
    """What was learnt of a character."""

    total: int
    """How many there are."""
    versions: list[LoraVersion]
    """The oldest first."""


@router.get("")
def list_characters() -> Characters:
    """All characters, by name."""
    found = keeping.list_all()
    return Characters(total=len(found), characters=found)


@router.post("", status_code=201)
def create_character(wanted: NewCharacter, answer: Response) -> Character:
    """Make a character; a person has to agree."""
    fields = wanted.model_dump(exclude={"name"})
    made = keeping.create(wanted.name, **fields)
    answer.headers["Location"] = f"/api/characters/{made.id}"
    return made


@router.get("/{character}")
def read_character(character: str) -> Character:
    """One character, by name or id."""
    return keeping.find(character)


@router.patch("/{character}")
def change_character(character: str, changes: Changes) -> Character:
    """Change name, style or word."""
    return keeping.update(character, **changes.model_dump())


@router.delete("/{character}")
def delete_character(
    character: str,
    by: Annotated[str | None, Query(max_length=200, description="Who asks for it.")] = None,
    reason: Annotated[str, Query(max_length=500, description="In their words.")] = "",
) -> Tombstone:
    """Remove a character with all that came of it; what is left says who asked."""
    return delete(character, by=by, reason=reason)


@router.get("/{character}/images")
def list_images(character: str) -> Pictures:
    """Its reference pictures."""
    found = list(keeping.find(character).pictures)
    return Pictures(total=len(found), images=found)


@router.post("/{character}/images", status_code=201, openapi_extra=_BYTES)
async def add_image(
    character: str,
    request: Request,
    content_type: Annotated[str, Header(description="Of the file, or octet-stream.")] = "",
    consent_given: Annotated[bool, Query(description="Whether the person agreed.")] = False,
    consent_by: Annotated[str | None, Query(max_length=200, description="Who says so.")] = None,
) -> CharacterPicture | Pictures:
    """Add a reference picture: the body is the file itself, or a form with one or more of them.

    A form is answered with all pictures that it brought.
    """

    def kept(path: Path) -> CharacterPicture:
        return keeping.add_picture(
            character,
            path,
            consent_given=consent_given,
            consent_by=consent_by,
            called="the picture",
        )

    with current_store().workspace() as folder:
        if not is_form(content_type):
            require_file(content_type)
            path = Path(folder) / "picture"
            await arrived(request.stream(), path)
            return await run_in_threadpool(kept, path)
        form = await read_form(request, Path(folder))
        given = form.fields.get("consent_given", "").lower() in ("true", "1", "yes", "on")
        consent_given, consent_by = (
            consent_given or given,
            form.fields.get("consent_by", consent_by),
        )
        if not form.files:
            raise MissingRequiredFieldError("the form has no file", "add a picture to the form")
        pictures = [await run_in_threadpool(kept, path) for _, path in form.files]
        return Pictures(total=len(pictures), images=pictures)


@router.delete("/{character}/images/{sha256}")
def remove_image(character: str, sha256: str) -> Character:
    """Take a picture away."""
    return keeping.remove_picture(character, sha256)


@router.get("/{character}/loras")
def list_loras(character: str) -> Versions:
    """Versions of its LoRA."""
    found = list_versions(keeping.find(character).id)
    return Versions(total=len(found), versions=found)


@training.post("", status_code=201)
def submit_training(
    parameters: dict[str, JsonValue],
    answer: Response,
    shared: Everything,
    key: IdempotencyKey = None,
) -> Job:
    """Submit a training: the body holds the parameters of the flow `train_lora`."""
    job = shared.submitter.submit(Submission(workflow=TRAINING, parameters=parameters), key)
    answer.headers["Location"] = f"/api/training/{job.id}"
    return job


@training.get("")
def list_trainings(shared: Everything, wanted: Annotated[JobFilters, Query()]) -> JobPage:
    """Trainings, newest first."""
    return filtered_jobs(shared.client, shared.flows, wanted, WorkflowType.TRAIN)


training.get("/{job_id}", name="read_training")(read_job)
training.post("/{job_id}/cancel", name="cancel_training")(cancel_job)
training.get(
    "/{job_id}/stream", name="follow_training", response_class=Response, responses=STREAMED
)(follow_plainly)
