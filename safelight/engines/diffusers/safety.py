"""The safety checker of Stable Diffusion: tells pictures that are not for everybody."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from safelight.engines.diffusers.calling import libraries
from safelight.engines.diffusers.model import quiet
from safelight.engines.identity import EngineIdentity
from safelight.engines.machine.device import device_class, resolve_device
from safelight.engines.machine.loaded import loaded
from safelight.errors import DependencyMissingError, InvalidMediaError
from safelight.pixels import Pixels
from safelight.weights.add_ons import find_add_on
from safelight.weights.hashing import files_of, weights_sha256
from safelight.weights.pinned import pinned
from safelight.weights.places import models_folder

FOLDER = "safety_checker"
CONFIG, PREPARES = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
REVISION = "1"
"""Raised when the same picture is judged otherwise."""


@dataclass(frozen=True)
class Checker:
    """A loaded one."""

    network: Any
    prepares: Any
    device: str


def identity(name: str | None) -> EngineIdentity:
    """As what a judgement counts; loads nothing.

    Raises:
        DependencyMissingError: there is no checker, or one of its files is missing.
    """
    return EngineIdentity(
        engine_id="diffusers",
        version=f"{libraries()}+safety{REVISION}",
        weights=(weights_sha256(_found(name)),),
        device_class=device_class(),
    )


def is_unsafe(name: str | None, image: Pixels) -> bool:
    """Whether a picture shows one of the concepts that the checker was made with.

    Raises:
        DependencyMissingError: there is no checker, or one of its files is missing.
        InvalidMediaError: its files cannot be loaded.
    """
    import torch

    path, device = _found(name), resolve_device()
    sha256 = weights_sha256(path)
    size = sum(file.stat().st_size for file in files_of(path))
    checker = loaded(("safety", sha256, device), lambda: _opened(path, sha256, device), size)
    with quiet(), torch.inference_mode():
        seen = checker.prepares(Image.fromarray(image), return_tensors="pt").pixel_values
        shown = np.array(image, np.float32)[None] / 255  # what it finds it would blacken in there
        _, found = checker.network(clip_input=seen.to(device), images=shown)
    return bool(found[0])


def _found(name: str | None) -> Path:
    folder = models_folder() / FOLDER
    remedy = (
        "put the folder safety_checker of a Stable Diffusion 1.5 there, with "
        f"{PREPARES} of its folder feature_extractor"
    )
    if name is None:
        there = sorted(each.name for each in folder.glob("*") if each.is_dir())
        if not there:
            raise DependencyMissingError(
                f"there is no safety checker in {folder}", f"{remedy}, in a folder of any name"
            )
        name = there[0]
    path = find_add_on(FOLDER, name)
    lacking = [each for each in (CONFIG, PREPARES) if not (path / each).is_file()]
    if not any((path / each).is_file() for each in WEIGHTS):
        lacking.append(WEIGHTS[0])
    if lacking:
        raise DependencyMissingError(
            f"the safety checker {path.name} has no {' and no '.join(lacking)}", remedy
        )
    return path


def _opened(path: Path, sha256: str, device: str) -> Checker:
    with quiet():
        from diffusers.pipelines.stable_diffusion.safety_checker import (
            StableDiffusionSafetyChecker,
        )
        from transformers import CLIPImageProcessor

        try:
            with pinned(path, sha256) as kept:
                network = StableDiffusionSafetyChecker.from_pretrained(kept, local_files_only=True)
                prepares = CLIPImageProcessor.from_pretrained(kept, local_files_only=True)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
            raise InvalidMediaError(
                f"the safety checker {path.name} cannot be loaded: {str(error)[:300]}",
                "get its folder again",
            ) from error
        whole: Any = network.eval()  # its stub takes no device
        return Checker(whole.to(device), prepares, device)
