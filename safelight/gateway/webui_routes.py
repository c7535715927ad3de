"""Routes of AUTOMATIC1111's web UI, so that programs for it need another address and no more."""

import json
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter
from prefect.client.orchestration import SyncPrefectClient
from pydantic import BaseModel, JsonValue

from safelight.gateway.finished import as_base64, bytes_in, finished
from safelight.gateway.job_routes import IdempotencyKey
from safelight.gateway.jobs import Flows, Job, Status
from safelight.gateway.listing import list_jobs
from safelight.gateway.shared import Everything
from safelight.gateway.steering import cancel
from safelight.gateway.webui import (
    Drawing,
    Enlarging,
    Redrawing,
    enlargement,
    image_to_image,
    text_to_image,
)
from safelight.provenance.parameters_text import SAMPLERS, SCHEDULES, parse_parameters
from safelight.provenance.remixing.reading import texts_of
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from safelight.weights.registry import registry

router = APIRouter(prefix="/sdapi/v1", tags=["web UI"])
FIELDS: set[str] = {
    *("prompt", "negative_prompt", "width", "height", "steps", "cfg_scale", "sampler_name")
}


class Pictures(BaseModel):
    """Pictures that were drawn."""

    images: list[str]
    """PNG files in base64, with all that they say of themselves."""
    parameters: dict[str, JsonValue]
    """What was asked for, without pictures."""
    info: str
    """JSON: seeds, and the `parameters` text of each picture."""


class Enlarged(BaseModel):
    """A picture that was enlarged."""

    html_info: str
    """The stages that made it."""
    image: str
    """PNG in base64."""


class Progress(BaseModel):
    """How far the job is that runs."""

    progress: float
    """0 to 1; 0 when none runs."""
    eta_relative: float = 0
    """Seconds; not estimated."""
    state: dict[str, JsonValue]
    """Its id and what it does."""
    current_image: str | None = None
    """Not shown."""
    textinfo: str | None
    """What its log would say."""


class Described(BaseModel, extra="forbid"):
    """A picture whose text is wanted."""

    image: str
    """In base64."""


class Said(BaseModel):
    """What a picture says."""

    info: str
    """Its `parameters` text; empty where it has none."""
    items: dict[str, str]
    """All texts, by keyword."""
    parameters: dict[str, JsonValue]
    """Its fields, as they stand there."""


@router.post("/txt2img")
async def draw_from_text(
    wanted: Drawing, shared: Everything, key: IdempotencyKey = None
) -> Pictures:
    """Draw pictures; answers when they are there."""
    job, made = await finished(shared, "generate", text_to_image(wanted), key)
    return await run_sync(_answer, job, made, wanted)


@router.post("/img2img")
async def draw_over_picture(
    wanted: Redrawing, shared: Everything, key: IdempotencyKey = None
) -> Pictures:
    """Draw over a picture, or over the part of it that a mask shows."""
    flow, parameters = await run_sync(image_to_image, wanted)
    job, made = await finished(shared, flow, parameters, key)
    return await run_sync(_answer, job, made, wanted)


@router.post("/extra-single-image")
async def enlarge_picture(
    wanted: Enlarging, shared: Everything, key: IdempotencyKey = None
) -> Enlarged:
    """Enlarge a picture."""
    job, made = await finished(shared, "enhance", await run_sync(enlargement, wanted), key)
    return Enlarged(html_info=job.name, image=await run_sync(as_base64, made[0]))


@router.get("/progress")
def read_progress(shared: Everything, skip_current_image: bool = False) -> Progress:
    """How far the newest job is that runs."""
    del skip_current_image
    running = _running(shared.client, shared.flows)
    if running is None:
        return Progress(progress=0, state={"job": "", "job_count": 0}, textinfo=None)
    return Progress(
        progress=running.progress / 100,
        state={"job": str(running.id), "job_count": 1},
        textinfo=running.stage or None,
    )


@router.post("/interrupt")
def interrupt(shared: Everything) -> dict[str, JsonValue]:
    """Cancel the newest job that runs."""
    running = _running(shared.client, shared.flows)
    if running is not None:
        cancel(shared.client, shared.flows, running.id, "interrupted")
    return {}


@router.get("/sd-models")
def list_checkpoint_files() -> list[dict[str, JsonValue]]:
    """Models, as `sd_model_checkpoint` names them."""
    return [
        {
            "title": model.name,
            "model_name": model.name,
            "hash": None,
            "sha256": model.sha256,
            "filename": model.name,
            "config": None,
        }
        for model in registry().list_models("checkpoint")
    ]


@router.get("/loras")
def list_style_files() -> list[dict[str, JsonValue]]:
    """LoRAs, as `<lora:NAME:1>` names them."""
    return [
        {"name": model.name, "alias": model.name, "path": model.name, "metadata": {}}
        for model in registry().list_models("lora")
    ]


@router.get("/samplers")
def list_samplers() -> list[dict[str, Any]]:
    """Samplers by the names that such programs show."""
    ours: dict[str, list[str]] = {}
    for name, shown in SAMPLERS.items():
        ours.setdefault(shown, []).append(name)
    return [{"name": name, "aliases": names, "options": {}} for name, names in ours.items()]


@router.get("/schedulers")
def list_schedules() -> list[dict[str, Any]]:
    """Noise levels."""
    own = {"name": "automatic", "label": "Automatic", "aliases": None}
    return [own, *({"name": n, "label": shown, "aliases": None} for n, shown in SCHEDULES.items())]


@router.post("/png-info")
def read_picture(wanted: Described) -> Said:
    """What a picture says of how it was made."""
    data = bytes_in(wanted.image, "image")
    with current_store().workspace() as folder:
        path = Path(folder) / "picture"
        path.write_bytes(data)
        texts = texts_of(path)
    info = texts.get("parameters", "")
    found = parse_parameters(info) if info else None
    fields: dict[str, JsonValue] = {**found.fields} if found else {}
    if found:
        fields |= {"Prompt": found.prompt, "Negative prompt": found.negative_prompt}
    return Said(info=info, items=texts, parameters=fields)


def _running(client: SyncPrefectClient, flows: Flows) -> Job | None:
    page = list_jobs(
        client, flows, status=Status.RUNNING, kind=None, text=None, limit=1, cursor=None
    )
    return page.jobs[0] if page.jobs else None


def _answer(job: Job, made: list[ArtifactRef], wanted: Drawing) -> Pictures:
    images = [as_base64(ref) for ref in made]
    texts = [texts_of(current_store().fetch(ref)).get("parameters", "") for ref in made]
    seeds = [parse_parameters(text).fields.get("Seed", "") for text in texts]
    numbers = [int(seed) for seed in seeds if seed.isdecimal()]
    shown = wanted.model_dump(include=FIELDS)
    info = {
        **shown,
        "seed": numbers[0] if numbers else -1,
        "all_seeds": numbers,
        "all_prompts": [wanted.prompt] * len(made),
        "infotexts": texts,
        "job": str(job.id),
    }
    asked = wanted.model_dump(mode="json", exclude={"init_images", "mask"})
    return Pictures(images=images, parameters=asked, info=json.dumps(info))
