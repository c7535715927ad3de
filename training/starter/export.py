"""Write the trained model as a diffusers folder, with what people have to know about it."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPTextModel
from transformers.utils import logging as transformers_logging

from safelight.digests import sha256_of
from safelight.weights.places import FACTS, STARTER
from training.starter.card import LICENCE, licence_text, model_card, notice
from training.starter.networks import new_scheduler
from training.starter.render import SIDE
from training.starter.settings import Settings, chosen_settings
from training.starter.subjects import SUBJECTS
from training.starter.train import WORK, load_autoencoder, load_denoiser
from training.starter.vocabulary import write_tokenizer

LARGEST_BYTES = 25 * 10**6
"""All files together; they are part of every checkout."""


@dataclass(frozen=True)
class Parts:
    """The networks of one model."""

    autoencoder: AutoencoderKL
    text: CLIPTextModel
    denoiser: UNet2DConditionModel
    history: dict[str, float]
    """Steps and minutes of training of each part."""


def trained_parts() -> Parts:
    """Read the last checkpoints of the training.

    Raises:
        FileNotFoundError: a part was not trained yet.
    """
    autoencoder = load_autoencoder()
    denoiser, text, _, _ = load_denoiser()
    history: dict[str, float] = {}
    for part in ("autoencoder", "text", "denoiser"):
        kept = torch.load(WORK / f"{part}.pt", mmap=True)
        history[f"{part}_steps"] = kept["step"]
        history[f"{part}_minutes"] = round(kept["seconds"] / 60, 1)
    return Parts(autoencoder, text, denoiser, history)


def export(parts: Parts, folder: Path = STARTER, settings: Settings | None = None) -> Path:
    """Save a model in half precision, and describe it.

    Args:
        parts: the networks; they are converted to float16 in place.
        folder: is replaced when all files are written.
        settings: recommended ones; None are those that the tuning chose.

    Returns:
        `folder`.

    Raises:
        ValueError: the files are too large together, or a weight is too large for half precision.
    """
    new = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(new, ignore_errors=True)
    _save_networks(parts, new)
    settings = settings or chosen_settings()
    for name, text in (("LICENSE", licence_text()), ("NOTICE", notice())):
        (new / name).write_text(text, encoding="utf-8")
    facts = _facts(parts, settings, new)
    (new / FACTS).write_text(
        json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    write_model_card(new)
    size = sum(file.stat().st_size for file in new.rglob("*") if file.is_file())
    if size > LARGEST_BYTES:
        raise ValueError(f"the model has {size} bytes, expected at most {LARGEST_BYTES}")
    shutil.rmtree(folder, ignore_errors=True)
    new.replace(folder)
    return folder


def write_model_card(folder: Path = STARTER) -> None:
    """Write README.md anew; the figures come from the facts and the last evaluation."""
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    (folder / "README.md").write_text(model_card(facts), encoding="utf-8")


def _save_networks(parts: Parts, folder: Path) -> None:
    for network in (parts.autoencoder, parts.text, parts.denoiser):
        network.half()
        # Exported weights lie in memory as in any other file, whatever the training found fast.
        network.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        worst = max(float(weight.detach().abs().max()) for weight in network.parameters())
        if not worst < torch.finfo(torch.float16).max:
            raise ValueError(f"a weight of {type(network).__name__} is {worst} in half precision")
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
    # Trailing steps do not look at the offset, but the pipeline asks for 1.
    scheduler = DDIMScheduler.from_config(new_scheduler().config, steps_offset=1)
    pipeline = StableDiffusionPipeline(
        vae=parts.autoencoder,
        text_encoder=parts.text,
        tokenizer=write_tokenizer(folder / "tokenizer"),
        unet=parts.denoiser,
        scheduler=scheduler,  # pyright: ignore[reportArgumentType]
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    shutil.rmtree(folder / "tokenizer")
    write_tokenizer(folder / "tokenizer")  # as small and plain as it was, no second copy in JSON
    for config in folder.rglob("*.json"):
        _tidy(config)
    for weights in folder.rglob("*.safetensors"):
        weights.chmod(0o644)  # the library keeps them to their owner


def _tidy(config: Path) -> None:
    """Take out paths of this machine, and let each program choose the precision."""
    settings = json.loads(config.read_text(encoding="utf-8"))
    if settings.pop("_name_or_path", None) is None and "dtype" not in settings:
        return
    if "dtype" in settings:  # transformers would load float16, diffusers loads float32
        settings["dtype"] = "float32"
    config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _facts(parts: Parts, settings: Settings, folder: Path) -> dict[str, object]:
    networks = {
        "autoencoder": parts.autoencoder,
        "text_encoder": parts.text,
        "denoiser": parts.denoiser,
    }
    return {
        "description": (
            f"Draws {len(SUBJECTS)} everyday subjects, one at a time on white, in the style of "
            "emoji: animals, food, plants, vehicles, weather, faces, hearts and shapes, buildings, "
            "things. Small, quick and offline; for everything else take a real model."
        ),
        "licence": LICENCE,
        "base_model": "sd",
        "tags": ["starter", "emoji", "small"],
        "native_width": SIDE,
        "native_height": SIDE,
        "recommended_steps": settings.steps,
        "recommended_guidance_scale": settings.guidance_scale,
        "subjects": [
            {"name": subject.name, "words": list(subject.names[1:])} for subject in SUBJECTS
        ],
        "parameters": {
            name: sum(weight.numel() for weight in network.parameters())
            for name, network in networks.items()
        },
        "training": parts.history,
        "files": {
            file.relative_to(folder).as_posix(): {
                "size_bytes": file.stat().st_size,
                "sha256": sha256_of(file),
            }
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        },
    }
