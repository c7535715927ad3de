"""The generate stage: text to image."""

from collections.abc import Callable
from typing import Self

from pydantic import Field, model_validator

from safelight.engines import diffusion
from safelight.engines.diffusion import AddOn, Drawing
from safelight.engines.identity import EngineIdentity
from safelight.errors import MissingRequiredFieldError
from safelight.params import Params
from safelight.store.artifact import ArtifactRef
from safelight.store.store import Pixels
from safelight.weights.checkpoints import find_checkpoint
from tasks.ingest import ingest
from tasks.keeping import keep_image, load_image, record_of
from tasks.stage import stage


class LoraUse(Params):
    """One LoRA of the models folder."""

    name: str = Field(min_length=1)
    """Stem of its file in `loras`."""
    weight: float = Field(default=1.0, ge=-4, le=4)
    """How strongly it takes part."""


class SamplingParams(Params):
    """How a model is asked to draw; shared by all stages that draw with a prompt."""

    prompt: str = Field(min_length=1, max_length=2000)
    """What the picture shows."""
    negative_prompt: str = Field(default="", max_length=2000)
    """What it must not show."""
    seed: int | None = Field(default=None, ge=0, le=2**32 - 1)
    """Same seed, same picture; further pictures take the next ones. Flows draw it when missing."""
    steps: int = Field(default=20, ge=1, le=150)
    """Denoising steps."""
    guidance_scale: float = Field(default=7.5, ge=0, le=30)
    """How closely to follow the prompt."""
    num_images: int = Field(default=1, ge=1, le=16)
    """How many pictures."""
    model: str | None = None
    """Name of a model in the models folder; None takes the first, else the shipped one."""
    scheduler: str | None = None
    """ddim, euler, euler_a, dpmpp_2m, dpmpp_2m_karras, unipc, ...; None is the model's own."""
    loras: tuple[LoraUse, ...] = ()
    """LoRAs, applied together."""
    embeddings: tuple[str, ...] = ()
    """Textual inversions in `embeddings`; their names are words for the prompt."""
    use_controlnet: bool = False
    """Steer the composition by a control picture."""
    controlnet_model: str | None = None
    """Name in `controlnet`."""
    controlnet_image: str | None = None
    """`store:` link of the control picture; of the same size as the result."""
    controlnet_weight: float = Field(default=1.0, ge=0, le=2)
    """How strictly it is followed."""
    use_ipadapter: bool = False
    """Take a person or a style from reference pictures."""
    ipadapter_model: str = "default"
    """Name of a folder in `ip_adapter`."""
    ipadapter_images: tuple[str, ...] = ()
    """`store:` links of one to three reference pictures."""
    ipadapter_weight: float = Field(default=0.6, ge=0, le=1)
    """How strongly the references count."""

    def located(self, keep: Callable[[str], str]) -> Self:
        """With the control and reference pictures as links, and without those not used."""
        control, references = self.controlnet_image, self.ipadapter_images
        if control is None and not references:
            return self
        used = control is not None and self.use_controlnet
        return self.but(
            controlnet_image=keep(control) if used and control else None,
            ipadapter_images=tuple(map(keep, references)) if self.use_ipadapter else (),
        )

    @model_validator(mode="after")
    def _add_ons_are_whole(self) -> Self:
        if self.use_controlnet and (self.controlnet_image is None or self.controlnet_model is None):
            raise ValueError(
                "use_controlnet needs controlnet_model and controlnet_image; one is missing"
            )
        if self.use_ipadapter and not 1 <= len(self.ipadapter_images) <= 3:
            raise ValueError(
                f"use_ipadapter needs 1 to 3 ipadapter_images, found {len(self.ipadapter_images)}"
            )
        return self


class GenerateParams(SamplingParams):
    """What to draw and at which size."""

    width: int = Field(default=512, ge=64, le=4096, multiple_of=8)
    """Pixels."""
    height: int = Field(default=512, ge=64, le=4096, multiple_of=8)
    """Pixels."""


def add_ons_of(params: SamplingParams) -> tuple[AddOn, ...]:
    """Everything besides the model whose weights take part, in a fixed order."""
    found = [diffusion.add_on("loras", lora.name, lora.weight) for lora in params.loras]
    found += [diffusion.add_on("embeddings", name, 1.0) for name in params.embeddings]
    if params.use_controlnet:
        name = params.controlnet_model or ""
        found.append(diffusion.add_on("controlnet", name, params.controlnet_weight))
    if params.use_ipadapter:
        found.append(
            diffusion.add_on("ip_adapter", params.ipadapter_model, params.ipadapter_weight)
        )
    return tuple(found)


def drawing_identity(params: SamplingParams) -> EngineIdentity:
    """Engine and weights that parameters call for; also refuses what is not there.

    Raises:
        DependencyMissingError: a model, LoRA, embedding or adapter is missing.
        InvalidFieldValueError: the scheduler is not known.
    """
    diffusion.check_scheduler(params.scheduler)
    return diffusion.identity(find_checkpoint(params.model), add_ons_of(params))


def drawing_of(params: SamplingParams) -> Drawing:
    """Parameters as the engine takes them, pictures loaded.

    Raises:
        MissingRequiredFieldError: there is no seed; a stage never draws one by itself.
    """
    if params.seed is None:
        raise MissingRequiredFieldError(
            "the stage has no seed", "give seed a value, or let a flow draw it"
        )
    add_ons = list(add_ons_of(params))
    reference = add_ons.pop() if params.use_ipadapter else None
    control = add_ons.pop() if params.use_controlnet else None
    loras = len(params.loras)
    return Drawing(
        card=find_checkpoint(params.model),
        prompt=params.prompt,
        negative_prompt=params.negative_prompt,
        seed=params.seed,
        steps=params.steps,
        guidance_scale=params.guidance_scale,
        num_images=params.num_images,
        scheduler=params.scheduler,
        loras=tuple(add_ons[:loras]),
        embeddings=tuple(add_ons[loras:]),
        controlnet=control,
        control_image=_picture(params.controlnet_image) if control else None,
        ip_adapter=reference,
        reference_images=tuple(_picture(uri) for uri in params.ipadapter_images)
        if reference
        else (),
    )


def _picture(location: str | None) -> Pixels:
    return load_image(ingest(location or "", ("image",)))


@stage(takes=(), gives="image", identity=drawing_identity)
def generate(params: GenerateParams) -> list[ArtifactRef]:
    """Draw pictures from a prompt.

    Args:
        params: prompt, seed, size and model.

    Returns:
        `num_images` new artifacts, (height, width, 3) uint8 sRGB PNG.

    Raises:
        MissingRequiredFieldError: there is no seed.
        DependencyMissingError: a model, LoRA, embedding or adapter is missing.
        InvalidMediaError: the model's files cannot be loaded.
        OutOfMemoryError: too little memory even with everything moved off the device (retried).
    """
    pictures = diffusion.draw(drawing_of(params), params.width, params.height)
    return keep_drawn("generate", pictures, params, [])


def keep_drawn(
    name: str, pictures: list[Pixels], params: SamplingParams, sources: list[ArtifactRef]
) -> list[ArtifactRef]:
    """Store drawn pictures, each with the seed that makes it alone."""
    identity = drawing_identity(params)
    kept: list[ArtifactRef] = []
    for position, pixels in enumerate(pictures):
        alone = params.but(seed=(params.seed or 0) + position, num_images=1)
        kept.append(keep_image(pixels, record_of(name, alone, identity, sources)))
    return kept
