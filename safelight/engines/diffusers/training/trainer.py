"""A model for one training: loaded for it alone, prepared, trained, looked at and let go."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np

from safelight.engines.diffusers.calling import libraries
from safelight.engines.diffusers.lora_files import LayerNames, read_lora
from safelight.engines.diffusers.model import load_model, quiet
from safelight.engines.diffusers.training import dataset as datasets
from safelight.engines.diffusers.training.chance import derived
from safelight.engines.diffusers.training.exporting import lora_bytes
from safelight.engines.diffusers.training.families import Diffusion, Flow, family_of
from safelight.engines.diffusers.training.loop import Loop
from safelight.engines.diffusers.training.networks import LoraNetworks, begun_with
from safelight.engines.diffusers.training.optimizing import require_possible
from safelight.engines.diffusers.training.positions import Order
from safelight.engines.diffusers.training.tensor_files import read_told, told, write_tensors
from safelight.engines.identity import EngineIdentity
from safelight.engines.machine.device import device_class, resolve_device
from safelight.engines.machine.memory import give_back
from safelight.engines.training import Course, Example, ExportFacts, TrainRequest
from safelight.errors import InvalidFieldValueError
from safelight.pixels import Pixels
from safelight.progress import step
from safelight.store.disk import disk_errors
from safelight.weights.add_ons import find_add_on
from safelight.weights.checkpoints import WeightsCard, find_checkpoint
from safelight.weights.hashing import weights_sha256
from safelight.weights.pinned import pinned
from safelight.weights.safety import is_gguf

REVISION = "1"
"""Raised when the same training would end with other bytes."""
SAMPLE_STEPS, SAMPLE_GUIDANCE = 20, 7.0
"""Of sample pictures, where the model recommends nothing else."""


def identity(request: TrainRequest) -> EngineIdentity:
    """As what a training counts; loads nothing.

    Raises:
        DependencyMissingError: the model, the LoRA that it begins with, or a package is missing.
        InvalidFieldValueError: this device cannot train so.
    """
    require_possible(request.training, resolve_device())
    card = find_checkpoint(request.model)
    begun = request.training.network_weights
    first = (weights_sha256(find_add_on("loras", begun)),) if begun is not None else ()
    return EngineIdentity(
        engine_id="diffusers",
        version=f"{libraries()}+{REVISION}",
        weights=(*card.weights, *first),
        device_class=device_class(),
    )


@contextmanager
def _opened(request: TrainRequest) -> Generator[tuple[Diffusion | Flow, WeightsCard]]:
    """The model of a request, which nobody else uses meanwhile."""
    card = find_checkpoint(request.model)
    if is_gguf(card.file_path):
        raise InvalidFieldValueError(
            f"model {card.name} is GGUF, whose blocks cannot be trained on",
            "choose the same model in fp16 or bf16",
        )
    device = resolve_device()
    half = request.training.mixed_precision == "bf16"
    with quiet():
        model = load_model(card, device, "bf16" if half else "fp32")
        try:
            model.pipeline.scheduler = model.own_scheduler
            yield family_of(model.pipeline, model.own_scheduler, card.name), card
        finally:
            del model
            give_back()


def encode_dataset(request: TrainRequest, examples: Sequence[Example], target: Path) -> None:
    """See `Trains.encode_dataset`; draws the pictures of the prior first."""
    require_possible(request.training, resolve_device())
    options = request.dataset
    with _opened(request) as (family, card):
        drawn: list[tuple[str, Pixels]] = []
        count = options.class_images or len(options.class_prompts)
        side = options.resolution or card.native_width
        for at in range(count):
            step(at, count)
            prompt = options.class_prompts[at % len(options.class_prompts)]
            seed = derived(request.seed, "class", at)
            drawn += [(prompt, _drawn(family, card, prompt, seed, side))]
        datasets.encode(
            family,
            examples,
            drawn,
            options,
            card.native_width,
            target,
            cache_text=request.training.caches_text,
        )


def train(request: TrainRequest, prepared: Path, course: Course, target: Path) -> None:
    """See `Trains.train`."""
    options = request.training
    require_possible(options, resolve_device())
    held = datasets.opened(prepared)
    facts = read_told(prepared)
    with _opened(request) as (family, card):
        first = None
        if options.network_weights is not None:
            names = LayerNames(family.pipeline)
            with pinned_lora(options.network_weights) as path:
                first = begun_with(names, read_lora(path), options, options.network_weights)
        networks = LoraNetworks(family, options, request.seed)
        if first is not None:
            networks.load({**networks.weights, **first})
        loop = Loop(family, networks, held, options, request.seed, course)
        prompts = options.sample_prompts or (held.entries[0].caption,)

        def sample(done: int) -> None:
            course.sampled(done, prompts, _samples(family, card, request, prompts))

        loop.run(sample)
        with loop.averaged():
            kept = {
                "pipeline": type(family.pipeline).__name__,
                "predicts": getattr(family, "predicts", None),
                "model": card.name,
                "model_sha256": card.sha256,
                "training": options.model_dump(mode="json", exclude_unset=True),
                "dataset": request.dataset.model_dump(mode="json", exclude_unset=True),
                "entries": facts["entries"],
                "native": facts["native"],
                "seed": request.seed,
                "losses": [*loop.losses],
                "batches_per_epoch": Order(held, options, request.seed).batches_per_epoch,
            }
            write_tensors(target, dict(networks.weights), told(kept))


def draw_samples(request: TrainRequest, trained: Path, prompts: Sequence[str]) -> list[Pixels]:
    """See `Trains.draw_samples`."""
    with _opened(request) as (family, card):
        networks = LoraNetworks(family, request.training, request.seed)
        networks.load(_tensors(trained))
        networks.training(False)
        return _samples(family, card, request, prompts)


def export_lora(trained: Path, facts: ExportFacts, target: Path) -> None:
    """See `Trains.export_lora`."""
    known = cast("dict[str, Any]", read_told(trained))
    with disk_errors(target):
        target.write_bytes(lora_bytes(_tensors(trained), known, facts))


@contextmanager
def pinned_lora(name: str) -> Generator[Path]:
    """The file of a LoRA by its name, with the content that it has now.

    Raises:
        DependencyMissingError: there is none.
    """
    path = find_add_on("loras", name)
    with pinned(path, weights_sha256(path)) as file:
        yield file


def _tensors(trained: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: tensor.clone() for name, tensor in load_file(trained).items()}


def _samples(
    family: Diffusion | Flow, card: WeightsCard, request: TrainRequest, prompts: Sequence[str]
) -> list[Pixels]:
    side = request.dataset.resolution or card.native_width
    first = request.training.sample_seed
    return [
        _drawn(family, card, prompt, first + at * request.training.walk_seed, side)
        for at, prompt in enumerate(prompts)
    ]


def _drawn(
    family: Diffusion | Flow, card: WeightsCard, prompt: str, seed: int, side: int
) -> Pixels:
    """(side, side, 3) uint8 sRGB."""
    import torch

    family.pipeline.set_progress_bar_config(disable=True)
    multiple = family.multiple
    square = max(multiple, side // multiple * multiple)
    with torch.inference_mode():
        made = family.pipeline(
            prompt,
            width=square,
            height=square,
            num_inference_steps=card.recommended_steps or SAMPLE_STEPS,
            guidance_scale=card.recommended_guidance_scale or SAMPLE_GUIDANCE,
            generator=torch.Generator("cpu").manual_seed(seed),
            output_type="np",
        ).images[0]
    return np.rint(np.asarray(made, np.float32) * 255).astype(np.uint8)
