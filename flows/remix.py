"""A picture made again from what its file says, with changes."""

from math import ceil
from typing import Annotated

from pydantic import Field, JsonValue

from flows.running.inputs import Media, Seed, ingest_media
from flows.running.recorded import recorded_flow
from safelight.errors import DependencyMissingError
from safelight.params import SEEDS, checked
from safelight.provenance.parameters_text import model_name
from safelight.provenance.remixing.reading import understand
from safelight.provenance.remixing.understood import Hires
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from safelight.weights.add_ons import find_add_on
from tasks.base.recorder import recorder
from tasks.generate import GenerateParams, generate
from tasks.refine import RefineParams, refine
from tasks.upscale import UpscaleParams, upscale

NONE: dict[str, JsonValue] = {}
Remixed = Annotated[
    dict[str, JsonValue],
    Field(
        description='Values of generate that replace those of the file: {"steps": 30}. '
        "A null takes a value of the file away."
    ),
]
UseHires = Annotated[
    bool, Field(description="Repeat the second, larger pass that the file tells of.")
]
OURS = {"R-ESRGAN 4x+": "photo", "R-ESRGAN 4x+ Anime6B": "anime", "R-ESRGAN AnimeVideo": "video"}
"""Upscalers that AUTOMATIC1111 brings, and those here with the same weights."""
BY_ARITHMETIC = ("", "None", "Lanczos", "Nearest")
FACTORS = (2.0, 3.0, 4.0)
MOST_STEPS = 150


@recorded_flow
def remix(
    image: Media, changes: Remixed = NONE, seed: Seed = None, use_hires: UseHires = True
) -> list[ArtifactRef]:
    """Make a picture again from what AUTOMATIC1111, ComfyUI, InvokeAI or Safelight wrote into it.

    The seed of the file is taken, or that of `changes`; `seed` where there is neither.
    """
    source = ingest_media("image", image, ("image",))
    found = understand(current_store().fetch(source))
    known = GenerateParams.model_fields
    left: list[JsonValue] = [
        *found.left,
        *(f"{name}: no value of generate" for name in found.parameters.keys() - known),
    ]
    taken = {name: value for name, value in found.parameters.items() if name in known}
    given = {name: value for name, value in {**taken, **changes}.items() if value is not None}
    answer: dict[str, JsonValue] = {"tool": found.tool, "taken": taken, "left": left}
    recorder().answer["remix"] = answer
    params = checked(GenerateParams, "generate", **{"seed": seed, **given})
    hires = found.hires if use_hires and params.makes == "image" else None
    if hires is None:
        return generate(params)
    answer["hires"] = hires.model_dump(mode="json")
    enlarger, why = _enlarger(hires)
    if why:
        left.append(f"Hires upscaler {hires.upscaler}: {why}")
    recorder().expected_stages = 1 + params.num_images * (2 if enlarger else 1)
    second = _second(params, hires)
    return [
        _refined(picture, enlarger, second.but(seed=((params.seed or 0) + at) % SEEDS))
        for at, picture in enumerate(generate(params))
    ]


def _refined(
    picture: ArtifactRef, enlarger: UpscaleParams | None, second: RefineParams
) -> ArtifactRef:
    if enlarger is None:
        return refine(picture, second)
    return refine(upscale(picture, enlarger), second.but(scale=1.0))


def _second(params: GenerateParams, hires: Hires) -> RefineParams:
    """The second pass: as many steps as that program takes are left of a whole drawing."""
    tags = "".join(f" <lora:{lora.name}:{lora.weight:g}>" for lora in params.loras)
    steps = ceil((hires.steps or params.steps) / hires.strength)
    return RefineParams(
        prompt=params.prompt + tags,
        negative_prompt=params.negative_prompt,
        refinement_level=hires.strength,
        steps=min(MOST_STEPS, steps),
        guidance_scale=params.guidance_scale,
        scale=hires.scale,
        model=params.model,
        scheduler=params.scheduler,
        clip_skip=params.clip_skip,
    )


def _enlarger(hires: Hires) -> tuple[UpscaleParams | None, str]:
    """What enlarges before the second pass, and why it is not what the file names."""
    if hires.upscaler in BY_ARITHMETIC:
        return None, ""
    if hires.upscaler.startswith("Latent"):
        return None, "pixels are enlarged here, not latents"
    if hires.scale not in FACTORS:
        return None, f"upscalers enlarge 2, 3 or 4 times here, not {hires.scale:g}"
    name = OURS.get(hires.upscaler)
    if name is None:
        name = model_name(hires.upscaler)
        try:
            find_add_on("upscalers", name)
        except DependencyMissingError:
            return None, "there is none of this name in the models folder"
    given = {"upscale_factor": int(hires.scale), "model": name}
    return checked(UpscaleParams, "upscale", **given), ""
