"""Local diffusion models as an engine: requests name models and add-ons of the models folder."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from safelight.engines.diffusers import draw as diffusion
from safelight.engines.diffusers import safety, videos
from safelight.engines.diffusers.drawing import AddOn, Control, Drawing, add_on, require_seed
from safelight.engines.diffusers.encodings import check_clip_skip
from safelight.engines.diffusers.latents import mixed
from safelight.engines.diffusers.samplers import check_scheduler
from safelight.engines.diffusers.together import Over, draw_in_company, draw_over_in_company
from safelight.engines.diffusers.training import trainer
from safelight.engines.films import FilmRequest
from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import (
    NO_GUIDES,
    AddOnUse,
    AnimateRequest,
    Clip,
    DrawRequest,
    FillRequest,
    Guides,
    LatentRequest,
    LocalEngine,
    Pictures,
    PromptRequest,
    RedrawRequest,
    Request,
)
from safelight.engines.judging import SafetyRequest
from safelight.engines.training import Course, Example, ExportFacts, TrainRequest
from safelight.params import SEEDS
from safelight.pixels import Pixels
from safelight.progress import note
from safelight.weights.checkpoints import find_checkpoint


class Diffusers(LocalEngine):
    """Draws, draws over, fills in, mixes, animates and trains with models that diffusers loads."""

    engine_id: ClassVar[str] = "diffusers"

    def identity(self, request: Request) -> EngineIdentity:
        """Libraries, and the sha256 of the model and of each add-on.

        Raises:
            DependencyMissingError: a model, LoRA, embedding or adapter is missing.
            InvalidFieldValueError: the scheduler is not known, or cannot draw with this model.
        """
        if isinstance(request, AnimateRequest | FilmRequest):
            return videos.identity(request)
        if isinstance(request, SafetyRequest):
            return safety.identity(request.model)
        if isinstance(request, LatentRequest):
            return diffusion.identity(find_checkpoint(request.model))
        if isinstance(request, TrainRequest):
            return trainer.identity(request)
        if not isinstance(request, PromptRequest):
            raise TypeError(f"diffusers draws, it cannot serve a {type(request).__name__}")
        card = find_checkpoint(request.model)
        check_scheduler(request.scheduler, request.steps, card.base_model)
        check_clip_skip(request.clip_skip, card.base_model)
        return diffusion.identity(card, _add_ons(request))

    def draw(self, request: DrawRequest, guides: Guides = NO_GUIDES) -> Pictures:
        """See `diffusion.draw`; together with what others of its company ask for."""
        drawing = drawing_of(request, guides)
        return _drawn(drawing, draw_in_company(drawing, request.width, request.height))

    def redraw(self, request: RedrawRequest, image: Pixels, guides: Guides = NO_GUIDES) -> Pictures:
        """See `diffusion.redraw`; in company likewise."""
        drawing = drawing_of(request, guides)
        made = draw_over_in_company(drawing, Over(image, request.strength))
        return _drawn(drawing, made, request.strength)

    def fill(
        self, request: FillRequest, image: Pixels, mask: Pixels, guides: Guides = NO_GUIDES
    ) -> Pictures:
        """See `diffusion.fill`; in company likewise."""
        drawing = drawing_of(request, guides)
        made = draw_over_in_company(drawing, Over(image, request.strength, mask))
        return _drawn(drawing, made, request.strength)

    def animate(self, request: AnimateRequest, image: Pixels) -> Clip:
        """See `videos.animated`."""
        return videos.animated(request, image)

    def film(self, request: FilmRequest, draw: Callable[[], Pixels]) -> Clip:
        """See `videos.filmed`."""
        del draw  # its models draw all frames
        return videos.filmed(request)

    def is_unsafe(self, request: SafetyRequest, image: Pixels) -> bool:
        """See `safety.is_unsafe`."""
        return safety.is_unsafe(request.model, image)

    def mix_latents(
        self, request: LatentRequest, pictures: Sequence[Pixels], weights: Sequence[float]
    ) -> Pixels:
        """See `latents.mixed`."""
        return mixed(find_checkpoint(request.model), pictures, weights)

    def encode_dataset(
        self, request: TrainRequest, examples: Sequence[Example], target: Path
    ) -> None:
        """See `trainer.encode_dataset`."""
        trainer.encode_dataset(request, examples, target)

    def train(self, request: TrainRequest, dataset: Path, course: Course, target: Path) -> None:
        """See `trainer.train`."""
        trainer.train(request, dataset, course, target)

    def draw_samples(
        self, request: TrainRequest, trained: Path, prompts: Sequence[str]
    ) -> list[Pixels]:
        """See `trainer.draw_samples`."""
        return trainer.draw_samples(request, trained, prompts)

    def export_lora(self, trained: Path, facts: ExportFacts, target: Path) -> None:
        """See `trainer.export_lora`."""
        trainer.export_lora(trained, facts, target)


def drawing_of(request: PromptRequest, guides: Guides = NO_GUIDES) -> Drawing:
    """A request with its names resolved to files.

    Raises:
        MissingRequiredFieldError: there is no seed; an engine never draws one by itself.
        DependencyMissingError: a model, LoRA, embedding or adapter is missing.
    """
    return Drawing(
        card=find_checkpoint(request.model),
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=require_seed(request.seed),
        steps=request.steps,
        guidance_scale=request.guidance_scale,
        num_images=request.num_images,
        scheduler=request.scheduler,
        loras=tuple(_found("loras", use) for use in request.loras),
        embeddings=tuple(_found("embeddings", AddOnUse(name)) for name in request.embeddings),
        controls=tuple(
            Control(_found("controlnet", use), image, use.start, use.end)
            for use, image in zip(request.controlnets, guides.controls, strict=True)
        ),
        ip_adapter=_found("ip_adapter", request.ip_adapter) if request.ip_adapter else None,
        reference_images=guides.references,
        vae=_found("vae", AddOnUse(request.vae)) if request.vae else None,
        clip_skip=request.clip_skip,
    )


def _drawn(drawing: Drawing, pictures: Sequence[Pixels | None], strength: float = 1.0) -> Pictures:
    for at, each in enumerate(pictures):
        if each is None:
            note(
                f"picture {at + 1} of {len(pictures)}, of seed {(drawing.seed + at) % SEEDS}, is "
                "left out: it holds values that are no numbers"
            )
    fine = {at: each for at, each in enumerate(pictures) if each is not None}
    sampler = diffusion.sampler_of(drawing, strength)
    return Pictures(tuple(fine.values()), sampler=sampler, places=tuple(fine))


def _found(kind: str, use: AddOnUse) -> AddOn:
    return add_on(kind, use.name, use.weight, use.text_weight)


def _add_ons(request: PromptRequest) -> list[AddOn]:
    """Everything besides the model whose weights take part, in a fixed order."""
    found = [_found("loras", use) for use in request.loras]
    found += [_found("embeddings", AddOnUse(name)) for name in request.embeddings]
    found += [_found("controlnet", use) for use in request.controlnets]
    if request.ip_adapter is not None:
        found.append(_found("ip_adapter", request.ip_adapter))
    if request.vae is not None:
        found.append(_found("vae", AddOnUse(request.vae)))
    return found


ENGINE = Diffusers()
