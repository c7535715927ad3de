"""Routes of OpenAI's API for pictures, so that programs for it need another address and no more."""

import re
from typing import Annotated, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from safelight.errors import InvalidFieldValueError
from safelight.gateway.finished import as_base64, finished, refuse_others
from safelight.gateway.job_routes import IdempotencyKey
from safelight.gateway.jobs import Job
from safelight.gateway.shared import Everything
from safelight.store.artifact import ArtifactRef
from safelight.weights.registry import registry

router = APIRouter(prefix="/v1", tags=["OpenAI"])
THEIRS = re.compile(r"(gpt-image|dall-e|chatgpt-image)[\w.-]*")
"""Names of their own models; here the default model draws."""
NOTHING = {
    "background": ("auto", "opaque"),
    "moderation": ("auto", "low"),
    "output_compression": (100,),
    "output_format": ("png",),
    "partial_images": (0,),
    "quality": ("auto", "standard"),
    "stream": (False,),
}
"""Fields that are known and not done, with the values at which they ask for what is done anyway."""
SIDE = re.compile(r"(\d{1,5})x(\d{1,5})")
DEFAULT_SIDE = 512


def _one_if_absent(value: object) -> object:
    return 1 if value is None else value


class Wanted(BaseModel):
    """Pictures that are asked for."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={"examples": [{"prompt": "a red house", "n": 1, "size": "512x512"}]},
    )

    prompt: str
    """What to draw."""
    model: str | None = None
    """A model of the models folder; one of OpenAI's is the default."""
    n: Annotated[int, BeforeValidator(_one_if_absent)] = Field(default=1, ge=1, le=10)
    """How many."""
    size: str | None = None
    """WIDTHxHEIGHT in pixels, multiples of 8; auto is 512x512."""
    response_format: Literal["url", "b64_json"] | None = None
    """b64_json unless it says url."""
    seed: int | None = None
    """Not of OpenAI: of the first picture."""
    user: str | None = None
    """Taken, and used for nothing."""


class Picture(BaseModel):
    """One that was drawn."""

    b64_json: str | None = None
    """PNG in base64."""
    url: str | None = None
    """Where it can be downloaded."""


class Pictures(BaseModel):
    """All that were drawn."""

    created: int
    """Seconds since 1970."""
    data: list[Picture]
    """In order."""
    output_format: str = "png"
    """Of the files."""
    size: str
    """WIDTHxHEIGHT."""


class Model(BaseModel):
    """A model that draws."""

    id: str
    """Its name."""
    object: Literal["model"] = "model"
    """What it is."""
    created: int
    """When this machine first saw it, in seconds since 1970."""
    owned_by: str = "local"
    """Whose it is."""


class Models(BaseModel):
    """All that draw."""

    object: Literal["list"] = "list"
    """What it is."""
    data: list[Model]
    """By name."""


@router.get("/models")
def list_drawing_models() -> Models:
    """Models of the models folder."""
    found = registry().list_models("checkpoint")
    return Models(data=[Model(id=m.name, created=int(m.discovered_at.timestamp())) for m in found])


@router.post("/images/generations")
async def draw_pictures(
    wanted: Wanted, request: Request, shared: Everything, key: IdempotencyKey = None
) -> Pictures:
    """Draw pictures; answers when they are there."""
    parameters = as_parameters(wanted)
    job, made = await finished(shared, "generate", parameters, key)
    size = f"{parameters['width']}x{parameters['height']}"
    return await run_sync(answered, job, made, wanted, size, str(request.base_url))


def answered(job: Job, made: list[ArtifactRef], wanted: Wanted, size: str, base: str) -> Pictures:
    """What a job made, as such programs take it.

    Args:
        job: that has ended.
        made: in order.
        wanted: says whether addresses are.
        size: of the pictures.
        base: address of the gateway.
    """

    def picture(ref: ArtifactRef) -> Picture:
        if wanted.response_format == "url":
            return Picture(url=f"{base.rstrip('/')}/api/jobs/{job.id}/artifacts/{ref.sha256}")
        return Picture(b64_json=as_base64(ref))

    ended = job.ended_at
    return Pictures(
        created=0 if ended is None else int(ended.timestamp()),
        data=[picture(ref) for ref in made],
        size=size,
    )


def as_parameters(wanted: Wanted) -> dict[str, JsonValue]:
    """The parameters of `generate`.

    Raises:
        ContractMismatchError: a field asks for what is not done here.
        InvalidFieldValueError: the size is none.
    """
    refuse_others(wanted.model_extra or {}, NOTHING)
    width, height = sides(wanted.size)
    found: dict[str, JsonValue] = {
        "prompt": wanted.prompt,
        "num_images": wanted.n,
        "width": width,
        "height": height,
    }
    if wanted.model is not None and not THEIRS.fullmatch(wanted.model):
        found["model"] = wanted.model
    if wanted.seed is not None:
        found["seed"] = wanted.seed
    return found


def sides(size: str | None) -> tuple[int, int]:
    """Width and height that a size says.

    Raises:
        InvalidFieldValueError: it is none.
    """
    if size in (None, "auto"):
        return DEFAULT_SIDE, DEFAULT_SIDE
    found = SIDE.fullmatch(size)
    if found is None:
        raise InvalidFieldValueError(
            f"size is {size[:80]!r}, expected WIDTHxHEIGHT", "write for instance 512x768"
        )
    return int(found[1]), int(found[2])
