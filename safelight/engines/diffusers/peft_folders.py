"""LoRAs as peft saves them: a folder with `adapter_config.json` beside the tensors.

The config holds what the tensors do not say: alphas, and which part of a model they are for. A
field that changes numbers in a way that is not known here is refused by its name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safelight.engines.diffusers.deltas import UnfitError
from safelight.weights.json_files import read_object

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_KINDS = {"LORA": "lora_alpha", "LOHA": "alpha", "LOKR": "alpha"}
"""Of the adapters that are known here, to the field with their alpha."""
_PARTS = {
    "UNet2DConditionModel": "unet",
    "CLIPTextModel": "text_encoder",
    "CLIPTextModelWithProjection": "text_encoder_2",
}
"""Classes that peft notes, to the part of a pipeline."""
_COUNT = ("lora_alpha", "alpha", "alpha_pattern", "use_rslora", "auto_mapping", "peft_type")
_IN_TENSORS = (
    *("r", "rank_pattern", "target_modules", "exclude_modules", "layers_to_transform"),
    *("layers_pattern", "use_dora", "use_effective_conv2d", "decompose_both", "decompose_factor"),
)
_OF_TRAINING = (
    *("task_type", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
    *("lora_dropout", "rank_dropout", "module_dropout", "rank_dropout_scale"),
    *("megatron_core", "qalora_group_size", "eva_config"),
)
_STARTS = (True, False, "gaussian", "eva", "orthogonal", None)
"""Ways to begin a training that leave the model itself as it was."""


@dataclass(frozen=True)
class PeftConfig:
    """What the config of a folder says of its tensors."""

    part: str | None
    """Of a pipeline, whose layers they are for; None where it does not say."""
    alphas: Mapping[str, Any]
    """`lora_alpha`, `alpha_pattern`, `use_rslora`; `rank` where tensors may have none."""
    used: frozenset[str]
    """Names of the fields that count."""
    unused: Mapping[str, str]
    """Those that do not, and why."""
    dora: bool
    """Whether it has magnitudes."""


def read_config(folder: Path) -> PeftConfig:
    """Read the config of a folder.

    Raises:
        UnfitError: another kind of adapter, or a field that is not known here.
    """
    config = read_object(folder / CONFIG)
    kind = str(config.get("peft_type")).rpartition(".")[2]
    if kind not in _KINDS:
        raise UnfitError(f"its peft_type is {kind[:40]!r}, expected {', '.join(_KINDS)}")
    unused = {name: why for name, value in config.items() if (why := _why_unused(name, value))}
    alpha = config.get(_KINDS[kind])
    if not isinstance(alpha, int | float) or isinstance(alpha, bool):
        raise UnfitError(f"its {_KINDS[kind]} is {alpha!r}, expected a number")
    alphas: dict[str, Any] = {"lora_alpha": alpha}
    alphas |= {name: config[name] for name in ("alpha_pattern", "use_rslora") if name in config}
    if kind == "LOKR":  # two whole factors have no rank, and are scaled by this one all the same
        alphas["rank"] = config.get("r")
    return PeftConfig(
        part=_part_of(config.get("auto_mapping")),
        alphas=alphas,
        used=frozenset(config.keys() - unused.keys()),
        unused=unused,
        dora=config.get("use_dora") is True,
    )


def _why_unused(name: str, value: object) -> str | None:
    """Why a field does not count; None for one that does.

    Raises:
        UnfitError: nobody knows here whether it does.
    """
    if name in _COUNT:
        return None
    if name in _IN_TENSORS:
        return "the tensors say it themselves"
    start = name in ("init_lora_weights", "init_weights")
    if name in _OF_TRAINING or (start and value in _STARTS):
        return "of the training"
    if value in (None, False, "none", {}, []):
        return "not made use of"
    raise UnfitError(f"its {name} is {str(value)[:80]!r}, which is not known here")


def _part_of(mapping: object) -> str | None:
    if not isinstance(mapping, dict):
        return None
    named = str(cast("dict[str, object]", mapping).get("base_model_class"))
    if named not in _PARTS:
        raise UnfitError(f"it was made for a {named[:60]}, expected {', '.join(_PARTS)}")
    return _PARTS[named]
