"""What stages that draw with a prompt share: parameters, and what engines make of them."""

from collections.abc import Callable, Sequence
from typing import Annotated, Self, cast

from pydantic import AfterValidator, Field, model_validator

from safelight.engines.interface import AddOnUse, ControlUse, Guides, Pictures, PromptFields
from safelight.errors import MissingRequiredFieldError
from safelight.params import SEEDS, Params, Seed
from safelight.pixels import Pixels
from safelight.prompts.lora_tags import lora_tags
from safelight.store.artifact import ArtifactRef
from tasks.base.controls import Preprocessor, prepared
from tasks.base.ingest import ingest
from tasks.base.keeping import keep_image, load_image, record_of


def is_none(value: object) -> bool:
    """For fields that are left out of records where they say nothing."""
    return value is None


class LoraUse(Params):
    """One LoRA of the models folder."""

    name: str = Field(min_length=1)
    """Stem of its file in `loras`."""
    weight: float = Field(default=1.0, ge=-4, le=4)
    """How strongly it takes part."""
    text_weight: float | None = Field(default=None, ge=-4, le=4, exclude_if=is_none)
    """How strongly in the text encoders; None is `weight`."""


class ControlNetUse(Params):
    """One ControlNet of the models folder, with its picture."""

    model: str = Field(min_length=1)
    """Name in `controlnet`."""
    image: str = Field(min_length=1)
    """`store:` link of the control picture; of the same size as the result."""
    preprocessor: Preprocessor | None = None
    """Makes the control picture of a photograph, as for the first."""
    weight: float = Field(default=1.0, ge=0, le=2)
    """How strictly it is followed."""
    start: float = Field(default=0.0, ge=0, le=1)
    """Part of the steps that go by before it takes part."""
    end: float = Field(default=1.0, ge=0, le=1)
    """Part of the steps after which it takes no part any more."""

    @model_validator(mode="after")
    def _takes_part(self) -> Self:
        if self.start >= self.end:
            raise ValueError(
                f"the ControlNet starts at {self.start:g} and ends at {self.end:g} of the steps; "
                "its start must lie before its end"
            )
        return self


class ReferenceUse(Params):
    """Reference pictures of a person or a style, and the IP-Adapter that looks at them."""

    images: tuple[str, ...] = Field(min_length=1, max_length=3)
    """`store:` links of one to three pictures."""
    model: str = Field(default="default", min_length=1)
    """Name of a folder in `ip_adapter`."""
    weight: float = Field(default=0.6, ge=0, le=1)
    """How strongly they count."""

    @classmethod
    def of(cls, people: Sequence[ArtifactRef], model: str, weight: float) -> Self | None:
        """The person on photographs; None where there is none."""
        images = tuple(ref.uri for ref in people)
        return cls(images=images, model=model, weight=weight) if images else None

    def pictures(self) -> tuple[Pixels, ...]:
        """(H, W, 3) uint8 sRGB each."""
        return tuple(map(_picture, self.images))


class PromptedParams(Params):
    """How a model is asked to draw; shared by all stages that draw with a prompt."""

    prompt: str = Field(min_length=1, max_length=2000)
    """What the picture shows."""
    negative_prompt: str = Field(default="", max_length=2000)
    """What it must not show."""
    seed: Seed = None
    """Same seed, same picture; further pictures take the next ones. None or -1: one is drawn."""
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
    vae: str | None = None
    """Name of a VAE in `vae` of the models folder; None is the model's own."""
    clip_skip: int | None = Field(default=None, ge=1, le=12, exclude_if=is_none)
    """Which layer from the end of CLIP reads the prompt, as A1111 counts: 2 is the penultimate.
    None: the last, of XL the penultimate."""
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
    controlnet_preprocessor: Preprocessor | None = None
    """Makes the control picture of a photograph of any size: canny, soft_edges or scribble, as the
    ControlNet was trained. None takes the picture as it is."""
    controlnet_weight: float = Field(default=1.0, ge=0, le=2)
    """How strictly it is followed."""
    controlnet_start: float = Field(default=0.0, ge=0, le=1)
    """Part of the steps that go by before it takes part."""
    controlnet_end: float = Field(default=1.0, ge=0, le=1)
    """Part of the steps after which it takes no part any more."""
    further_controlnets: tuple[ControlNetUse, ...] = Field(default=(), max_length=4)
    """ControlNets that steer together with the first."""

    @model_validator(mode="before")
    @classmethod
    def _tags_are_loras(cls, given: object) -> object:
        """A prompt is text for the model; `<lora:NAME:WEIGHT>` in it is a LoRA instead."""
        if not isinstance(given, dict):
            return given
        fields = cast("dict[str, object]", given)
        prompt, loras = fields.get("prompt"), fields.get("loras", ())
        if not isinstance(prompt, str) or not isinstance(loras, list | tuple):
            return fields
        text, tagged = lora_tags(prompt)
        if not tagged:
            return fields
        named = [LoraUse.model_validate(tag.as_parameters()) for tag in tagged]
        return {**fields, "prompt": text, "loras": [*cast("list[object]", loras), *named]}

    def located(self, keep: Callable[[str], str]) -> Self:
        """With the control pictures as links, and without those not used."""
        control = self.controlnet_image
        if control is None and not self.further_controlnets:
            return self
        used = control is not None and self.use_controlnet
        further = self.further_controlnets if used else ()
        return self.but(
            controlnet_image=keep(control) if used and control else None,
            further_controlnets=tuple(each.but(image=keep(each.image)) for each in further),
        )

    @model_validator(mode="after")
    def _controls_are_whole(self) -> Self:
        if self.use_controlnet and (self.controlnet_image is None or self.controlnet_model is None):
            raise ValueError(
                "use_controlnet needs controlnet_model and controlnet_image; one is missing"
            )
        if self.controlnet_start >= self.controlnet_end:
            raise ValueError(
                f"controlnet_start is {self.controlnet_start:g} and controlnet_end "
                f"{self.controlnet_end:g}; the start must lie before the end"
            )
        if self.further_controlnets and not self.use_controlnet:
            raise ValueError("further_controlnets needs use_controlnet and a first ControlNet")
        return self


class SamplingParams(PromptedParams):
    """The same with reference pictures that the parameters name."""

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
        placed = super().located(keep)
        if not self.ipadapter_images:
            return placed
        used = self.ipadapter_images if self.use_ipadapter else ()
        return placed.but(ipadapter_images=tuple(map(keep, used)))

    @model_validator(mode="after")
    def _references_are_there(self) -> Self:
        if self.use_ipadapter and not 1 <= len(self.ipadapter_images) <= 3:
            raise ValueError(
                f"use_ipadapter needs 1 to 3 ipadapter_images, found {len(self.ipadapter_images)}"
            )
        return self


def _whole_tags(prompt: str) -> str:
    lora_tags(prompt)
    return prompt


Prompt = Annotated[str, AfterValidator(_whole_tags)]
"""A prompt whose LoRA tags are taken out later."""


def prompt_fields(params: PromptedParams, reference: AddOnUse | None = None) -> PromptFields:
    """Parameters as requests to engines have them.

    Args:
        params: of the stage.
        reference: the IP-Adapter of a stage whose references are not among its parameters.
    """
    first = ControlUse(
        params.controlnet_model or "",
        params.controlnet_weight,
        params.controlnet_start,
        params.controlnet_end,
    )
    further = (ControlUse(c.model, c.weight, c.start, c.end) for c in params.further_controlnets)
    if isinstance(params, SamplingParams) and params.use_ipadapter:
        reference = AddOnUse(params.ipadapter_model, params.ipadapter_weight)
    return PromptFields(
        prompt=params.prompt,
        negative_prompt=params.negative_prompt,
        seed=params.seed,
        steps=params.steps,
        guidance_scale=params.guidance_scale,
        num_images=params.num_images,
        model=params.model,
        scheduler=params.scheduler,
        loras=tuple(
            AddOnUse(lora.name, lora.weight, text_weight=lora.text_weight) for lora in params.loras
        ),
        embeddings=params.embeddings,
        controlnets=(first, *further) if params.use_controlnet else (),
        ip_adapter=reference,
        vae=params.vae,
        clip_skip=params.clip_skip or 1,
    )


def guides_of(
    params: PromptedParams, width: int, height: int, references: Sequence[ArtifactRef] = ()
) -> Guides:
    """The pictures that steer a drawing, loaded.

    Args:
        params: of the stage.
        width: of what is drawn, px; pictures that are prepared for a ControlNet get this size.
        height: the same.
        references: of a stage that reads them.

    Raises:
        MissingRequiredFieldError: there is no seed; a stage never draws one by itself.
    """
    if params.seed is None:
        raise MissingRequiredFieldError(
            "the stage has no seed", "give seed a value, or let a flow draw it"
        )
    named = params.ipadapter_images if isinstance(params, SamplingParams) else ()
    used = isinstance(params, SamplingParams) and params.use_ipadapter
    seen = [load_image(each) for each in references]
    return Guides(
        controls=_controls(params, width, height) if params.use_controlnet else (),
        references=(*seen, *(map(_picture, named) if used else ())),
    )


def _controls(params: PromptedParams, width: int, height: int) -> tuple[Pixels, ...]:
    first = _control(params.controlnet_image, params.controlnet_preprocessor, width, height)
    further = params.further_controlnets
    return (first, *(_control(each.image, each.preprocessor, width, height) for each in further))


def _control(place: str | None, kind: Preprocessor | None, width: int, height: int) -> Pixels:
    picture = _picture(place)
    return picture if kind is None else prepared(picture, kind, width, height)


def _picture(location: str | None) -> Pixels:
    return load_image(ingest(location or "", ("image",)))


def keep_drawn(
    shown: Sequence[Pixels],
    params: PromptedParams,
    sources: list[ArtifactRef],
    drawn: Pictures,
) -> list[ArtifactRef]:
    """Store drawn pictures, each with the seed that makes it alone, and what drew it."""
    kept: list[ArtifactRef] = []
    places = range(len(shown)) if drawn.places is None else drawn.places
    for position, pixels in zip(places, shown, strict=True):
        alone = params.but(seed=((params.seed or 0) + position) % SEEDS, num_images=1)
        record = record_of(alone, sources).model_copy(update={"sampler": drawn.sampler})
        kept.append(keep_image(pixels, record))
    return kept
