"""What the files of a model say of it, read in the confined process."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import JsonValue

from safelight.confined.transport import Array
from safelight.errors import InvalidMediaError
from safelight.weights.families import FAMILIES
from safelight.weights.json_files import read_object
from safelight.weights.parts import held_roles
from safelight.weights.places import facts_file
from safelight.weights.safety import safetensors_metadata, tensor_names

Prediction = Literal["epsilon", "v_prediction", "sample"]
PREDICTION = "modelspec.prediction_type"
"""The one field of a model's metadata that changes its pictures."""
_PREDICTIONS: dict[str, Prediction | None] = {
    "": None,
    **dict.fromkeys(("epsilon", "eps"), "epsilon"),
    **dict.fromkeys(("v", "v_prediction", "v_pred", "velocity"), "v_prediction"),
    **dict.fromkeys(("sample", "x0"), "sample"),
}
"""How files write it."""
_FAMILY_KEYS = {
    "conditioner.embedders.1.": "sdxl",
    "model.diffusion_model.joint_blocks.": "sd3",
    "model.diffusion_model.double_blocks.": "flux",
    "double_blocks.": "flux",
    "joint_blocks.": "sd3",
    "cond_stage_model.": "sd",
}
"""Beginnings of tensor names that only one family has."""
_NATIVE = {"sdxl": 1024, "sd3": 1024, "flux": 1024}
_DEFAULT_NATIVE, _LATENT_LEVELS, _MOST_LEVELS = 512, 4, 16


@dataclass(frozen=True)
class Told:
    """What the files of a model say of it."""

    facts: dict[str, JsonValue]
    """Those beside it, unchecked."""
    family: object
    """sd, sdxl, sd3 or flux, or what the facts say instead; None where nothing tells."""
    side: int
    """Pixels it was trained at, by its network's config, else as its family."""
    predicts: Prediction | None
    """What its network predicts; None where only the config tells."""
    zero_snr: bool | None
    """Whether it was trained to begin at pure noise."""
    network: str | None = None
    """Family of a single file by its tensors, whatever the facts say; None for folders."""
    holds: frozenset[str] = frozenset()
    """Parts that a single file of Stable Diffusion 3 or Flux brings, see `parts`."""


def told_by(path: str) -> tuple[Told, Array | None]:
    """Read the configs and names of tensors of a model that was looked into."""
    model = Path(path)
    facts = facts_in(facts_file(model))
    names = frozenset[str]() if model.is_dir() else tensor_names(model)
    family = facts.get("base_model") or family_of(model, names)
    network = None if model.is_dir() else family_of(model, names)
    return Told(
        facts,
        family,
        _native_side(model, family),
        *_prediction_of(model, names, facts),
        network,
        held_roles(names, network),
    ), None


def family_of(path: Path, names: frozenset[str]) -> str | None:
    """sd, sdxl, sd3 or flux, from a folder's index or the names in a checkpoint; None where neither
    tells."""
    if path.is_dir():
        made_for = str(facts_in(path / "model_index.json").get("_class_name", ""))
        return next((FAMILIES[start] for start in FAMILIES if made_for.startswith(start)), None)
    for start, family in _FAMILY_KEYS.items():
        if any(name.startswith(start) for name in names):
            return family
    return None


def _prediction_of(
    path: Path, names: frozenset[str], facts: Mapping[str, Any]
) -> tuple[Prediction | None, bool | None]:
    """What a single file says of its network: trainers leave it as tensors without content
    (`v_pred`, `ztsnr`) or as `modelspec.prediction_type` in its metadata. The facts count more."""
    if path.is_dir():
        return None, None
    zero = True if "ztsnr" in names else None
    said = safetensors_metadata(path).get(PREDICTION, "").strip().lower().replace("-", "_")
    if "prediction_type" in facts:
        return None, zero
    if said not in _PREDICTIONS:
        raise InvalidMediaError(
            f"{path.name} says {PREDICTION} {said[:40]!r}, expected epsilon, v or sample",
            f"name prediction_type in {path.stem}.json beside it",
        )
    return ("v_prediction" if "v_pred" in names else _PREDICTIONS[said]), zero


def _native_side(path: Path, family: str | None) -> int:
    """Pixels a side, from the size of the latents and the factor of the autoencoder."""
    usual = _NATIVE.get(str(family), _DEFAULT_NATIVE)  # what else facts call it is refused later
    for part in ("unet", "transformer"):
        latents = facts_in(path / part / "config.json").get("sample_size")
        if isinstance(latents, int):
            levels = facts_in(path / "vae" / "config.json").get("block_out_channels")
            levels = levels or [0] * _LATENT_LEVELS
            if not isinstance(levels, list) or len(cast("list[object]", levels)) > _MOST_LEVELS:
                raise InvalidMediaError(
                    f"the autoencoder of {path.name} lists no levels, or more than {_MOST_LEVELS}",
                    "correct vae/config.json, or get the model again",
                )
            return latents * 2 ** (len(cast("list[object]", levels)) - 1)
    return usual


def facts_in(file: Path) -> dict[str, Any]:
    """What a JSON file says; nothing where there is none."""
    return read_object(file) if file.is_file() else {}
