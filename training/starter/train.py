"""Train the autoencoder, then the text encoder and denoiser; every run continues the last one."""

import argparse
import os
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from training.starter.loop import Log, TrainingLoop
from training.starter.networks import (
    TEXT_WIDTH,
    new_autoencoder,
    new_denoiser,
    new_scheduler,
    new_text_encoder,
)
from training.starter.render import other_pictures, training_pictures
from training.starter.subjects import FILLER_WORDS, SUBJECTS, training_prompt
from training.starter.vocabulary import END, MAX_TOKENS, write_tokenizer

WORK = Path(__file__).parent / "work"
"""Pictures, checkpoints and sheets; not part of the repository."""
SEED = 0
VARIANTS = 8
"""Pictures a subject: enough that seeds differ in size and place, few enough to learn by heart."""


def pictures() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw the training pictures, or read them back.

    Returns:
        (subjects, VARIANTS, SIDE, SIDE, 4) and (others, SIDE, SIDE, 4), uint8 RGBA.
    """
    file = WORK / "pictures.npz"
    if not file.exists():
        WORK.mkdir(parents=True, exist_ok=True)
        np.savez(file, subjects=training_pictures(VARIANTS, SEED), others=other_pictures())
    with np.load(file) as kept:
        return kept["subjects"], kept["others"]


def compose(rgba: Tensor, background: Tensor) -> Tensor:
    """Lay pictures on colours.

    Args:
        rgba: (n, SIDE, SIDE, 4) uint8.
        background: (n, 3) float, 0 to 1.

    Returns:
        (n, 3, SIDE, SIDE) float32, -1 to 1.
    """
    values = rgba.float().div(255).permute(0, 3, 1, 2)
    alpha = values[:, 3:]
    mixed = values[:, :3] * alpha + background[:, :, None, None] * (1 - alpha)
    return mixed * 2 - 1


def edge_loss(drawn: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference of the first differences along both axes."""
    across = (drawn.diff(dim=-1) - wanted.diff(dim=-1)).abs().mean()
    return across + (drawn.diff(dim=-2) - wanted.diff(dim=-2)).abs().mean()


def train_autoencoder(minutes: float, batch: int = 16) -> None:
    """Train on all emoji, the subjects half of the time, on white and coloured grounds.

    Args:
        minutes: of training, together with those of an earlier, stopped run.
        batch: pictures a step, an even number.
    """
    subjects, others = (torch.from_numpy(part) for part in pictures())
    subjects = subjects.flatten(0, 1)
    model = new_autoencoder()
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimiser = torch.optim.AdamW(model.parameters(), 1.5e-3, weight_decay=1e-4)
    log = Log(50, "autoencoder {step} loss {loss:.4f} {pace:.2f} s/step")
    loop = TrainingLoop(model, optimiser, WORK / "autoencoder.pt", log)

    def learning_rate(step: int, progress: float) -> float:
        return 1.5e-3 * min(1.0, (step + 1) / 100) * max(0.02, 1 - progress)

    def loss_at(step: int) -> Tensor:
        draw = torch.Generator().manual_seed(SEED * 1_000_003 + step)
        rgba = torch.cat(
            [
                subjects[torch.randint(len(subjects), (batch // 2,), generator=draw)],
                others[torch.randint(len(others), (batch // 2,), generator=draw)],
            ]
        )
        plain = torch.rand(batch, 1, generator=draw) < 0.65
        background = torch.where(plain, 1.0, torch.rand(batch, 3, generator=draw))
        wanted = compose(rgba, background)
        right, down = torch.randint(-4, 5, (2,), generator=draw).tolist()
        wanted = wanted.roll((down, right), (2, 3))
        if torch.rand((), generator=draw) < 0.5:
            wanted = wanted.flip(-1)
        if torch.rand((), generator=draw) < 0.2:
            wanted = wanted[:, torch.randperm(3, generator=draw)]
        wanted = wanted.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = model.encode(wanted).latent_dist  # pyright: ignore[reportAttributeAccessIssue]
            latents = posterior.mean + posterior.std * torch.randn(
                posterior.mean.shape, generator=draw
            )
            drawn = model.decode(latents).sample  # pyright: ignore[reportAttributeAccessIssue]
        drawn = drawn.float()
        loss = functional.l1_loss(drawn, wanted) + functional.mse_loss(drawn, wanted)
        return loss + 0.5 * edge_loss(drawn, wanted) + 1e-6 * posterior.kl().float().mean()

    loop.run(minutes * 60, learning_rate, loss_at)


def load_autoencoder() -> AutoencoderKL:
    """Read the trained autoencoder, with the scaling factor that gives latents unit variance."""
    model = new_autoencoder()
    model.load_state_dict(torch.load(WORK / "autoencoder.pt")["model"])
    model.requires_grad_(False).eval()
    latents = _encode(model)
    model.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))
    return model


@torch.no_grad()
def _encode(model: AutoencoderKL) -> Tensor:
    subjects = torch.from_numpy(pictures()[0])
    count, variants = subjects.shape[:2]
    rows = [
        model.encode(compose(part, torch.ones(len(part), 3))).latent_dist.mean  # pyright: ignore[reportAttributeAccessIssue]
        for part in subjects.flatten(0, 1).split(64)
    ]
    return torch.cat(rows).unflatten(0, (count, variants))


def training_latents(model: AutoencoderKL) -> Tensor:
    """Encode every training picture once.

    Returns:
        (subjects, VARIANTS, 4, 16, 16) float32, unit variance.
    """
    return _encode(model) * model.config["scaling_factor"]


def tokenize(tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    """Turn prompts into (n, MAX_TOKENS) token ids, as StableDiffusionPipeline does."""
    return tokenizer(
        prompts,
        padding="max_length",
        max_length=MAX_TOKENS,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def subject_codes() -> Tensor:
    """Draw a code for each subject, and one for prompts without any: random directions.

    Random vectors in many dimensions are nearly orthogonal, so no two subjects are alike, whatever
    their names have in common.

    Returns:
        (subjects + 1, TEXT_WIDTH) float32, unit variance.
    """
    draw = torch.Generator().manual_seed(SEED)
    return torch.randn(len(SUBJECTS) + 1, TEXT_WIDTH, generator=draw)


def train_text_encoder(minutes: float, batch: int = 64, peak: float = 2e-3) -> None:
    """Teach the text encoder which subject a prompt is about, before anything is drawn.

    The states at the end token and behind it become the code of the subject. Trained together
    with the denoiser, a text encoder this small collapses: all prompts become alike.

    Args:
        minutes: in all, earlier runs included.
        batch: prompts a step.
        peak: largest learning rate.
    """
    tokenizer = write_tokenizer(WORK / "tokenizer")
    torch.manual_seed(SEED)
    model, codes = new_text_encoder(tokenizer), subject_codes()
    optimiser = torch.optim.AdamW(model.parameters(), peak, betas=(0.9, 0.99), weight_decay=0.01)
    log = Log(100, "text encoder {step} loss {loss:.4f}")
    loop = TrainingLoop(model, optimiser, WORK / "text.pt", log)

    def learning_rate(step: int, progress: float) -> float:
        return peak * min(1.0, (step + 1) / 100) * max(0.01, 1 - progress)

    def loss_at(step: int) -> Tensor:
        words = random.Random(SEED * 1_000_003 + step)
        chosen = [words.randrange(len(SUBJECTS) + 1) for _ in range(batch)]
        tokens = tokenize(tokenizer, [prompt_for(index, words) for index in chosen])
        states = model(tokens).last_hidden_state
        wanted = codes[chosen][:, None].expand_as(states)
        behind = (tokens == tokenizer.get_vocab()[END])[:, :, None]
        return ((states - wanted).square() * behind).sum() / (behind.sum() * TEXT_WIDTH)

    loop.run(minutes * 60, learning_rate, loss_at)


def prompt_for(index: int, words: random.Random) -> str:
    """Word a request for a subject, or for nothing that is known."""
    if index < len(SUBJECTS):
        return training_prompt(SUBJECTS[index], words)
    return " ".join(words.choices(FILLER_WORDS, k=words.randrange(7)))


def load_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Read the trained text encoder; it is not trained any further."""
    model = new_text_encoder(tokenizer)
    model.load_state_dict(torch.load(WORK / "text.pt")["model"])
    model.requires_grad_(False)
    return model.eval()


def train_denoiser(minutes: float, batch: int = 16, peak: float = 8e-4) -> None:
    """Train the denoiser on the cached latents and the states of the finished text encoder.

    Args:
        minutes: in all, earlier runs included; the learning rate falls to its end over them.
        batch: pictures a step.
        peak: largest learning rate.
    """
    autoencoder = load_autoencoder()
    latents = training_latents(autoencoder)
    tokenizer = write_tokenizer(WORK / "tokenizer")
    text = load_text_encoder(tokenizer)
    torch.manual_seed(SEED)
    model, schedule = new_denoiser(), new_scheduler()
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimiser = torch.optim.AdamW(model.parameters(), peak, betas=(0.9, 0.99), weight_decay=0.01)
    log = Log(100, "denoiser {step} loss {loss:.4f} {pace:.3f} s/step {minutes:.1f} min")
    loop = TrainingLoop(
        model,
        optimiser,
        WORK / "denoiser.pt",
        log,
        average=True,
        notes={"subjects": [subject.name for subject in SUBJECTS]},
    )

    def learning_rate(step: int, progress: float) -> float:
        return peak * min(1.0, (step + 1) / 300) * learning_rate_share(progress)

    def loss_at(step: int) -> Tensor:
        words = random.Random(SEED * 1_000_003 + step)
        draw = torch.Generator().manual_seed(SEED * 1_000_003 + step)
        chosen = torch.randperm(len(SUBJECTS), generator=draw)[:batch]
        clean = latents[chosen, torch.randint(VARIANTS, (batch,), generator=draw)]
        prompts = [
            "" if words.random() < 0.1 else training_prompt(SUBJECTS[index], words)
            for index in chosen.tolist()
        ]
        moments = training_moments(batch, draw)
        noise = torch.randn(clean.shape, generator=draw)
        noisy = schedule.add_noise(clean, noise, moments)  # pyright: ignore[reportArgumentType]
        wanted = schedule.get_velocity(clean, noise, moments)  # pyright: ignore[reportArgumentType]
        with torch.no_grad():
            states = text(tokenize(tokenizer, prompts)).last_hidden_state
        with torch.autocast("cpu", torch.bfloat16):
            noisy = noisy.contiguous(memory_format=torch.channels_last)
            guess = model(noisy, moments, states).sample
        return functional.mse_loss(guess.float(), wanted)

    loop.run(minutes * 60, learning_rate, loss_at)


def training_moments(batch: int, draw: torch.Generator) -> Tensor:
    """Draw timesteps, three quarters of them where the prompt and not the picture decides.

    One from each of equal parts of the distribution: less noise in the loss.

    Returns:
        (batch,) int64, 0 to 999.
    """
    place = (torch.arange(batch) + torch.rand(batch, generator=draw)) / batch
    early = 500 + (place - 0.25) / 0.75 * 500
    late = place / 0.25 * 500
    return torch.where(place < 0.25, late, early).long().clamp(max=999)


def learning_rate_share(progress: float) -> float:
    """Share of the peak: level for 40 % of the time, then a cosine to 2 %."""
    if progress < 0.4:
        return 1.0
    return 0.02 + 0.98 * 0.5 * (1 + float(np.cos(np.pi * (progress - 0.4) / 0.6)))


def load_denoiser() -> tuple[UNet2DConditionModel, CLIPTextModel, CLIPTokenizer, int]:
    """Read the averaged weights of the last checkpoint, and its number of steps."""
    tokenizer = write_tokenizer(WORK / "tokenizer")
    text, model = load_text_encoder(tokenizer), new_denoiser()
    kept = torch.load(WORK / "denoiser.pt")
    with torch.no_grad():
        for parameter, mean in zip(model.parameters(), kept["average"], strict=True):
            parameter.copy_(mean)
    return model.eval(), text.eval(), tokenizer, kept["step"]


def main() -> None:
    """Read the command line and train one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["autoencoder", "text", "denoiser"])
    parser.add_argument(
        "--minutes", type=float, required=True, help="in all, earlier runs included"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(SEED)
    if arguments.part == "autoencoder":
        train_autoencoder(arguments.minutes)
    elif arguments.part == "text":
        train_text_encoder(arguments.minutes)
    else:
        train_denoiser(arguments.minutes)


if __name__ == "__main__":
    main()
