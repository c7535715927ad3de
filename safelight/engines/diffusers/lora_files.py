"""LoRA files and their kin: which tensors belong to which layer of a model.

Trainers name layers in ways of their own: by diffusers' path (`unet.mid_block...`), by that path
with underscores (`lora_unet_mid_block_...`), by the path of the first Stable Diffusion code
(`lora_unet_input_blocks_4_1_...`, `diffusion_model.input_blocks...`), and text encoders as
`lora_te1_...` or `text_encoder.`. What is told here is only whose a tensor is; `deltas` knows what
it does.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from safelight.engines.diffusers.deltas import UnfitError
from safelight.engines.diffusers.peft_folders import CONFIG, TENSORS, read_config

if TYPE_CHECKING:
    import torch

Tensors = dict[str, "torch.Tensor"]
PARTS = ("unet", "text_encoder", "text_encoder_2")
"""Of a pipeline, whose layers such files change."""
_SAME = {
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "lora_mid.weight": "mid",
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora_A.default.weight": "down",
    "lora_B.default.weight": "up",
    "lora.down.weight": "down",
    "lora.up.weight": "up",
    "lora_linear_layer.down.weight": "down",
    "lora_linear_layer.up.weight": "up",
    "lora_magnitude_vector": "dora_scale",
    "lora_magnitude_vector.weight": "dora_scale",
    "lora_magnitude_vector.default.weight": "dora_scale",
}
"""Ends of names that mean the same, to the word for it here."""
_OWN = (
    *("alpha", "dora_scale", "scalar", "diff", "diff_b", "w_norm", "b_norm", "on_input", "weight"),
    *(f"hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
    *(f"lokr_{part}" for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")),
)
_PROCESSOR = re.compile(r"(.*)\.processor\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight")
_UNDERSCORED = {
    "lora_unet_": "unet",
    "lycoris_": "unet",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te_": "text_encoder",
}
_PEFT_START = "base_model.model."
_DOTTED = {
    "unet.": "unet",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "diffusion_model.": "unet",
    _PEFT_START: "unet",
}
_RESNET = {
    "in_layers_0": "norm1",
    "in_layers_2": "conv1",
    "emb_layers_1": "time_emb_proj",
    "out_layers_0": "norm2",
    "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}
_OUTSIDE = {
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
    "input_blocks_0_0": "conv_in",
    "out_0": "conv_norm_out",
    "out_2": "conv_out",
}
_FIRST_NAMES = re.compile(r"(input|output|middle)_blocks?_(\d+)(?:_(\d+))?_(.+)")


_PEFT = "lora_adapter_metadata"


@dataclass(frozen=True)
class Layer:
    """What a file says about one layer."""

    name: str
    """As the file has it."""
    tensors: Tensors = field(default_factory=dict[str, "torch.Tensor"])
    """By the words of `deltas`."""


@dataclass(frozen=True)
class LoraFile:
    """All of a file."""

    layers: dict[str, Layer]
    """By the name that the file has for a layer."""
    unknown: tuple[str, ...]
    """Names of tensors of no kind that is known here."""
    config: Mapping[str, Any]
    """What peft kept in the metadata; empty for other trainers."""
    metadata: tuple[str, ...] = ()
    """Names of the other fields of the metadata."""
    used: frozenset[str] = frozenset()
    """Names of the fields of a config beside the tensors that count."""
    unused: Mapping[str, str] = field(default_factory=dict[str, str])
    """Those that do not, and why."""


def read_lora(path: Path) -> LoraFile:
    """Sort the tensors of a file, or of a folder of peft, by the layers they are for.

    Raises:
        UnfitError: a folder whose config says what is not known here, or speaks of other tensors.
    """
    if not path.is_dir():
        return _read_file(path)
    config = read_config(path)
    read = _read_file(path / TENSORS)
    words = {word for layer in read.layers.values() for word in layer.tensors}
    if config.dora and "dora_scale" not in words:
        raise UnfitError("its config says DoRA, and it holds no magnitudes")
    layers = read.layers
    if config.part is not None:
        layers = {
            name: Layer(name, layer.tensors)
            for layer in read.layers.values()
            for name in [f"{config.part}.{layer.name.removeprefix(_PEFT_START)}"]
        }
    return LoraFile(
        layers,
        read.unknown,
        config.alphas,
        used=frozenset(f"{CONFIG}.{name}" for name in config.used),
        unused={f"{CONFIG}.{name}": why for name, why in config.unused.items()},
    )


def _read_file(path: Path) -> LoraFile:
    from safetensors import safe_open

    layers: dict[str, Layer] = {}
    unknown: list[str] = []
    with safe_open(str(path), framework="pt") as opened:
        metadata = cast("dict[str, str]", opened.metadata() or {})
        for name in opened.keys():
            found = _split(name)
            if found is None:
                unknown.append(name)
                continue
            layer, word = found
            layers.setdefault(layer, Layer(layer)).tensors[word] = opened.get_tensor(name)
    others = tuple(name for name in metadata if name not in (_PEFT, "format"))
    return LoraFile(layers, tuple(unknown), _config(metadata), others)


def _split(name: str) -> tuple[str, str] | None:
    processor = _PROCESSOR.fullmatch(name)
    if processor is not None:
        layer = f"{processor[1]}.{processor[2]}"
        return layer + ".0" * (processor[2] == "to_out"), processor[3]
    for end, word in _SAME.items():
        if name.endswith(f".{end}"):
            return name[: -len(end) - 1], word
    layer, _, word = name.rpartition(".")
    return (layer, word) if layer and word in _OWN else None


def _config(metadata: Mapping[str, str]) -> Mapping[str, Any]:
    try:
        found = json.loads(metadata.get(_PEFT, "{}"))
    except ValueError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


class LayerNames:
    """Finds the layers of a pipeline by any of the names that files have for them."""

    def __init__(self, pipeline: Any) -> None:  # noqa: ANN401  (diffusers is untyped)
        self._parts: dict[str, dict[str, Any]] = {}
        self._underscored: dict[str, dict[str, str]] = {}
        for part in PARTS:
            module = getattr(pipeline, part, None)
            if module is None:
                continue
            weighted = {
                path: layer
                for path, layer in module.named_modules()
                if getattr(layer, "weight", None) is not None
            }
            self._parts[part] = weighted
            self._underscored[part] = dict(_with_underscores(weighted))
        unet = getattr(pipeline, "unet", None)
        self._depth = int(unet.config.layers_per_block) + 1 if unet is not None else 1

    def find(self, name: str) -> tuple[str, str, Any] | None:
        """Part of the pipeline, path in it and module; None when the model has no such layer."""
        for start, part in _UNDERSCORED.items():
            if name.startswith(start):
                return self._by_underscores(part, name.removeprefix(start))
        for start, part in _DOTTED.items():
            if name.startswith(start):
                path = name.removeprefix(start)
                found = self._by_path(part, path)
                return found or self._by_underscores(part, path.replace(".", "_"))
        return self._by_path("unet", name)

    def _by_path(self, part: str, path: str) -> tuple[str, str, Any] | None:
        module = self._parts.get(part, {}).get(path)
        return None if module is None else (part, path, module)

    def _by_underscores(self, part: str, name: str) -> tuple[str, str, Any] | None:
        known = self._underscored.get(part, {})
        path = known.get(name)
        if path is None and part == "unet":
            path = known.get(self._of_the_first(name))
        return None if path is None else (part, path, self._parts[part][path])

    def _of_the_first(self, name: str) -> str:
        """The name with underscores that diffusers has for one of the first code's."""
        if name in _OUTSIDE:
            return _OUTSIDE[name]
        split = _FIRST_NAMES.fullmatch(name)
        if split is None:
            return name
        half, number, inner, rest = split[1], int(split[2]), split[3], split[4]
        if half == "middle":
            rest = rest if inner is None else f"{inner}_{rest}"
            kind, place = ("attentions", 0) if number == 1 else ("resnets", number // 2)
            return f"mid_block_{kind}_{place}_{_RESNET.get(rest, rest)}"
        level, place = divmod(number - (half == "input"), self._depth)
        block = f"{'down' if half == 'input' else 'up'}_blocks_{level}"
        if half == "input" and place == self._depth - 1:
            return f"{block}_downsamplers_0_conv"
        if rest == "conv":  # what enlarges stands behind the last attention, or in its place
            return f"{block}_upsamplers_0_conv"
        kind = "resnets" if inner == "0" else "attentions"
        return f"{block}_{kind}_{place}_{_RESNET.get(rest, rest)}"


def _with_underscores(paths: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for path in paths:
        plain = path.replace(".", "_")
        yield plain, path
        # transformers has dropped and kept this step of the path by turns
        short = plain.removeprefix("text_model_")
        yield (f"text_model_{plain}" if short == plain else short), path
