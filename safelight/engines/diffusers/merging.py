"""Puts LoRAs and their kin into the weights of a model, and takes them out again to the bit.

A copy of each changed weight waits in main memory meanwhile. Every tensor of a file takes part, or
is named with the reason why not, or the file is refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from safelight.engines.diffusers.accounts import NAMED, Account
from safelight.engines.diffusers.deltas import UnfitError, changed
from safelight.engines.diffusers.lora_files import LayerNames, LoraFile

if TYPE_CHECKING:
    import torch

_BIASES = {"diff_b", "b_norm"}
_CONFIG = {"lora_alpha", "alpha_pattern", "use_rslora"}
"""Fields of peft's own config that change numbers."""
_PLAIN = re.compile(r"[\w.]+")


@dataclass(frozen=True)
class _Change:
    tensors: "dict[str, torch.Tensor]"
    strength: float
    config: Mapping[str, Any]
    named: str


@dataclass
class Merging:
    """Changes of one model's weights: collected, made at once, undone."""

    names: LayerNames
    _changes: "dict[tuple[str, str], tuple[Any, list[_Change]]]" = field(default_factory=dict)
    _before: "list[tuple[torch.nn.Parameter, torch.Tensor]]" = field(default_factory=list)

    def add(self, file: LoraFile, strength: float, text_strength: float | None = None) -> Account:
        """Note what a file changes.

        Args:
            file: with its layers.
            strength: 1 is the whole change, 0 none.
            text_strength: of the layers of text encoders; None is `strength`.

        Raises:
            UnfitError: it holds kinds of tensors that are not known, or no layer of this model.
        """
        if file.unknown:
            first = ", ".join(file.unknown[:NAMED])
            raise UnfitError(
                f"{len(file.unknown)} of its tensors are of no kind known here: {first}"
            )
        used: list[str] = []
        unused = _unused_fields(file)
        for layer in file.layers.values():
            found = self.names.find(layer.name)
            if found is None:
                unused[layer.name] = "the model has no such layer"
                continue
            part, path, module = found
            config = _config_of(file.config, part, path)
            is_text = part.startswith("text_encoder")
            by_part = text_strength if is_text and text_strength is not None else strength
            change = _Change(layer.tensors, by_part, config, layer.name)
            self._changes.setdefault((part, path), (module, []))[1].append(change)
            used.append(layer.name)
        if not used:
            first = ", ".join(list(file.layers)[:NAMED]) or "nothing"
            raise UnfitError(f"it holds no layer of this model, but {first}")
        return Account(frozenset(used) | _used_fields(file), unused)

    def make(self) -> None:
        """Make all changes.

        Raises:
            UnfitError: one does not fit its layer, or leads out of the range of numbers.
        """
        for module, changes in self._changes.values():
            weight = module.weight.detach().float()
            bias = None if module.bias is None else module.bias.detach().float()
            for change in changes:
                try:
                    weight, bias = _after(change, weight, bias)
                except (UnfitError, RuntimeError) as error:
                    raise type(error)(f"layer {change.named}: {error}") from error
            self._write(module.weight, weight)
            if (
                module.bias is not None
                and bias is not None
                and any(_BIASES & change.tensors.keys() for change in changes)
            ):
                self._write(module.bias, bias)

    def undo(self) -> None:
        """Put the weights back as they were."""
        import torch

        with torch.no_grad():
            for parameter, before in reversed(self._before):
                parameter.copy_(before)
        self._before.clear()

    def _write(self, parameter: "torch.nn.Parameter", value: "torch.Tensor") -> None:
        import torch

        written = value.to(parameter.dtype)
        if not bool(torch.isfinite(written).all()):
            raise UnfitError("with it, weights are no finite numbers")
        copy = parameter.detach().to("cpu", copy=True)
        self._before.append((parameter, copy))
        with torch.no_grad():
            parameter.copy_(written)


def _after(
    change: _Change, weight: "torch.Tensor", bias: "torch.Tensor | None"
) -> "tuple[torch.Tensor, torch.Tensor | None]":
    held = {name: tensor.to(weight.device).float() for name, tensor in change.tensors.items()}
    for name in _BIASES & held.keys():
        if bias is None or held[name].shape != bias.shape:
            raise UnfitError(f"{name} is {tuple(held[name].shape)}, which its bias is not")
        bias = bias + change.strength * held[name]
    if held.keys() - _BIASES - {"alpha"}:
        weight = changed(held, weight, change.strength, change.config)
    return weight, bias


def _used_fields(file: LoraFile) -> frozenset[str]:
    return file.used or frozenset(
        f"metadata.{name}" for name in file.config if name.rpartition(".")[2] in _CONFIG
    )


def _unused_fields(file: LoraFile) -> dict[str, str]:
    """Fields of the metadata that change no number, by why they do not."""
    if file.used:  # of a config beside the tensors
        return dict(file.unused)
    unused = {
        f"metadata.{name}": "the tensors say it themselves"
        for name in file.config
        if name.rpartition(".")[2] not in _CONFIG
    }
    for name in file.metadata:
        training = name.startswith("ss_")
        unused[f"metadata.{name}"] = "of the training" if training else "about the file"
    return unused


def _config_of(config: Mapping[str, Any], part: str, path: str) -> Mapping[str, Any]:
    """What peft's metadata say of a layer; its names are `unet.lora_alpha` and the like."""
    own = {
        name.removeprefix(f"{part}."): value
        for name, value in config.items()
        if name.startswith(f"{part}.")
    } or dict(config)
    patterns = own.get("alpha_pattern")
    for pattern, alpha in cast("dict[str, Any]", patterns or {}).items():
        if not _PLAIN.fullmatch(pattern):
            raise UnfitError(f"its alpha_pattern {pattern!r} is an expression, expected a layer")
        if path == pattern or path.endswith(f".{pattern}"):
            return {**own, "lora_alpha": alpha}
    return own
