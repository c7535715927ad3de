"""LoRAs for Stable Diffusion 3 and Flux under the names of the networks' first authors.

ComfyUI writes them so, and so do trainers beside it. Where several layers of diffusers' network are
one there, each takes the first matrix and its rows of the second.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safelight.engines.diffusers.accounts import several
from safelight.engines.diffusers.deltas import UnfitError
from safelight.engines.diffusers.flow_names import is_turned, targets, with_dots
from safelight.engines.diffusers.lora_files import Layer, LayerNames, read_lora

if TYPE_CHECKING:
    import torch

_NETWORK = ("diffusion_model.", "base_model.model.", "transformer.", "lora_unet_", "")
"""How the names of a network's layers may begin in a file."""
_FIRST = re.compile(
    rf"({'|'.join(map(re.escape, _NETWORK))})(double|single|joint)_blocks[._]\d+[._]"
)
_TEXT = {
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "text_encoders.clip_l.transformer.": "text_encoder",
    "text_encoders.clip_g.transformer.": "text_encoder_2",
}
_WORDS = frozenset({"down", "up", "alpha"})


@dataclass(frozen=True)
class Renamed:
    """A file in diffusers' names."""

    tensors: "dict[str, torch.Tensor]"
    """As `load_lora_weights` takes them, the alphas multiplied in."""
    lacking: tuple[str, ...]
    """Layers of the file that the model has not."""


def renamed(path: Path, pipeline: Any) -> Renamed | None:  # noqa: ANN401  (diffusers is untyped)
    """A file's tensors in diffusers' names; None where it is not in those of the first authors.

    kohya's names of Flux's layers are left to diffusers, which knows them.

    Args:
        path: of a safetensors file.
        pipeline: with a transformer.

    Raises:
        UnfitError: it holds more than plain LoRA of layers, or of layers of other sizes.
    """
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as opened:
        found = [_FIRST.match(name) for name in opened.keys()]
    if not any(each and (each[1] != "lora_unet_" or each[2] == "joint") for each in found):
        return None
    file = read_lora(path)
    others = [
        *file.unknown,
        *(name for name, layer in file.layers.items() if layer.tensors.keys() - _WORDS),
    ]
    if others:
        raise UnfitError(f"{len(others)} of its tensors are no plain LoRA: {several(others)}")
    if file.config:
        raise UnfitError("its metadata are of peft, the names of its layers are not")
    places = _Places(pipeline)
    made: dict[str, torch.Tensor] = {}
    lacking: list[str] = []
    for layer in file.layers.values():
        own = places.find(layer.name)
        if not own:
            lacking.append(layer.name)
            continue
        for target, down, up in _split(layer, own, places.width):
            if f"{target}.lora_A.weight" in made:
                raise UnfitError(f"layer {layer.name} is in it twice")
            made[f"{target}.lora_A.weight"], made[f"{target}.lora_B.weight"] = down, up
    if not made:
        raise UnfitError(f"it holds no layer of this model, but {several(lacking)}")
    return Renamed(made, tuple(lacking))


class _Places:
    """Finds the layers of a pipeline by the names of the first authors."""

    def __init__(self, pipeline: Any) -> None:  # noqa: ANN401
        network = pipeline.transformer
        self.width = int(network.inner_dim)
        self._layers = dict(network.named_modules())
        is_flux = "single_transformer_blocks" in self._layers
        self._blocks = ("double_blocks", "single_blocks") if is_flux else ("joint_blocks",)
        self._text = LayerNames(pipeline)
        self._loadable = tuple(pipeline._lora_loadable_modules)

    def find(self, name: str) -> list[tuple[str, Any]]:
        """The paths in the pipeline of what a layer is for, in the order of its rows."""
        for start, part in _TEXT.items():
            if name.startswith(start):
                return self._of_text(part, name.removeprefix(start))
        start = next(each for each in _NETWORK if name.startswith(each))
        plain = name.removeprefix(start)
        plain = with_dots(plain) if start.endswith("_") else plain
        if "_blocks." in plain and not plain.startswith(self._blocks):
            return []
        paths = [each.removesuffix(".weight") for each in targets(f"{plain}.weight")]
        if any(path not in self._layers for path in paths):
            return []
        return [(f"transformer.{path}", self._layers[path]) for path in paths]

    def _of_text(self, part: str, path: str) -> list[tuple[str, Any]]:
        if part not in self._loadable:
            return []
        number = "2" if part.endswith("_2") else "1"
        found = self._text.find(f"lora_te{number}_{path.replace('.', '_')}")
        return [] if found is None else [(f"{part}.{found[1]}", found[2])]


def _split(
    layer: Layer, own: Sequence[tuple[str, Any]], width: int
) -> "Iterator[tuple[str, torch.Tensor, torch.Tensor]]":
    """What of a layer belongs to each of the model's, with the alpha multiplied in."""
    import torch

    if not {"down", "up"} <= layer.tensors.keys():
        raise UnfitError(f"layer {layer.name}: half of it is missing")
    down, up = layer.tensors["down"].float(), layer.tensors["up"].float()
    rows = [int(getattr(module, "out_features", 0)) for _, module in own]
    columns = int(getattr(own[0][1], "in_features", 0))
    fits = down.dim() == up.dim() == 2 and up.shape[1] == down.shape[0] > 0
    if not fits or (up.shape[0], down.shape[1]) != (sum(rows), columns):
        raise UnfitError(
            f"layer {layer.name}: it multiplies {tuple(up.shape)} with {tuple(down.shape)}, "
            f"the layer is {(sum(rows), columns)}"
        )
    alpha = layer.tensors.get("alpha")
    if alpha is not None:
        if alpha.numel() != 1:
            raise UnfitError(f"layer {layer.name}: its alpha is {tuple(alpha.shape)}")
        up = up * (float(alpha) / down.shape[0])
    for (path, _), part in zip(own, up.split(rows), strict=True):
        part_of_pipeline, _, place = path.partition(".")
        if part_of_pipeline == "transformer" and is_turned(f"{place}.weight", len(part), width):
            part = torch.cat(part.chunk(2)[::-1])
        yield path, down.clone(), part.contiguous()
