"""Pictures and captions as a network reads them: encoded once, kept in one file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from safelight.engines.diffusers.training.buckets import bucket_of, fitted
from safelight.engines.diffusers.training.families import Diffusion, Flow, Text
from safelight.engines.diffusers.training.tensor_files import read_told, told, write_tensors
from safelight.engines.training import DatasetOptions, Example
from safelight.progress import step

if TYPE_CHECKING:
    import torch

    from safelight.pixels import Pixels

NOTHING = ""
"""The caption of a picture that is taken without one."""


@dataclass(frozen=True)
class Entry:
    """One picture of a prepared dataset."""

    index: int
    """Its place in the file."""
    caption: str
    """What it shows."""
    repeats: int
    """How often it is taken an epoch."""
    width: int
    """Of its bucket, px."""
    height: int
    """The same."""
    prior: bool
    """Whether the model drew it itself."""


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset in memory."""

    entries: tuple[Entry, ...]
    """All pictures, those of people first."""
    latents: "dict[tuple[int, bool], torch.Tensor]"
    """By place and whether mirrored: (C, h, w)."""
    texts: dict[str, Text]
    """By caption, where they were encoded; empty otherwise."""
    mirrored: bool
    """Whether there are mirrored ones."""


def encode(
    family: Diffusion | Flow,
    examples: Sequence[Example],
    drawn: "Sequence[tuple[str, Pixels]]",
    options: DatasetOptions,
    native: int,
    target: Path,
    *,
    cache_text: bool,
) -> None:
    """Write a dataset.

    Args:
        family: of the model.
        examples: pictures of people.
        drawn: prompts and pictures of the model itself.
        options: sizes and mirrored pictures.
        native: side that the model was trained at, px.
        target: file to write.
        cache_text: whether captions are encoded too.

    Raises:
        StopRequestedError: the run was asked to stop.
    """
    import torch

    entries = [(e.pixels, e.caption, e.repeats, False) for e in examples]
    entries += [(pixels, prompt, 1, True) for prompt, pixels in drawn]
    tensors: dict[str, torch.Tensor] = {}
    listed: list[dict[str, object]] = []
    with torch.inference_mode():
        for at, (pixels, caption, repeats, prior) in enumerate(entries):
            step(at, len(entries))
            high, wide = pixels.shape[:2]
            size = bucket_of(wide, high, options, native, family.multiple)
            covered = fitted(pixels, *size)
            tensors[f"latents.{at}.0"] = latents_of(family, covered)
            if options.flip_aug and not prior:
                mirrored = np.ascontiguousarray(covered[:, ::-1])
                tensors[f"latents.{at}.1"] = latents_of(family, mirrored)
            listed.append(
                {"caption": caption, "repeats": repeats, "size": list(size), "prior": prior}
            )
        captions = list(dict.fromkeys([NOTHING, *(caption for _, caption, _, _ in entries)]))
        for at, caption in enumerate(captions if cache_text else ()):
            for name, rows in family.encode_text([caption]).items():
                tensors[f"text.{at}.{name}"] = rows[0].float()
    facts = {"entries": listed, "texts": captions if cache_text else [], "native": native}
    write_tensors(target, tensors, told(facts))


def latents_of(family: Diffusion | Flow, pixels: "Pixels") -> "torch.Tensor":
    """(C, h, w) float32: the middle of what the autoencoder takes a picture for."""
    import torch

    vae: Any = family.pipeline.vae
    scaled = torch.from_numpy(pixels.copy()).to(vae.device, torch.float32) / 127.5 - 1
    encoded = vae.encode(scaled.permute(2, 0, 1)[None].to(vae.dtype)).latent_dist.mode()
    shift = vae.config.get("shift_factor") or 0.0
    return ((encoded - shift) * vae.config.scaling_factor)[0].float()


def opened(path: Path) -> Dataset:
    """Read a dataset that `encode` wrote."""
    from safetensors import safe_open

    facts = cast("dict[str, Any]", read_told(path))
    latents: dict[tuple[int, bool], torch.Tensor] = {}
    texts: dict[str, Text] = {caption: {} for caption in facts["texts"]}
    captions = list(texts)
    with safe_open(str(path), framework="pt") as file:
        for name in file.keys():
            kind, at, rest = name.split(".", 2)
            # a copy lies as torch's own tensors do; sums may depend on that
            tensor = file.get_tensor(name).clone()
            if kind == "latents":
                latents[int(at), rest == "1"] = tensor
            else:
                texts[captions[int(at)]][rest] = tensor
    entries = tuple(
        Entry(at, e["caption"], e["repeats"], e["size"][0], e["size"][1], e["prior"])
        for at, e in enumerate(facts["entries"])
    )
    return Dataset(entries, latents, texts, any(mirrored for _, mirrored in latents))
