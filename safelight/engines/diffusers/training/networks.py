"""The LoRA on a model: which layers it changes, and its weights by name."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from safelight.engines.diffusers.lora_files import LayerNames, LoraFile
from safelight.engines.diffusers.training.chance import derived
from safelight.engines.diffusers.training.families import Diffusion, Flow
from safelight.engines.training import TrainingOptions
from safelight.errors import InvalidFieldValueError

if TYPE_CHECKING:
    import torch

ADAPTER = "default"
_ATTENTION = re.compile(r"(^|\.)(attentions|transformer_blocks|single_transformer_blocks)\.\d+\.")
_ALL = re.compile(r"(^|\.)(attentions|resnets|downsamplers|upsamplers)\.\d+\.")
"""Of a UNet: those that kohya's scripts train with `conv_dim`. Readers lose what lies outside."""
_WORDS = re.compile(r"(^|\.)layers\.\d+\.(self_attn|mlp)\.")
_LEAF = re.compile(rf"\.(lora_[AB])\.{ADAPTER}\.weight$")


class LoraNetworks:
    """LoRA layers of peft on the parts of a pipeline that are trained.

    Args:
        family: with the pipeline, whose own weights are frozen.
        options: rank and layers.
        seed: of the first weights.
    """

    def __init__(self, family: Diffusion | Flow, options: TrainingOptions, seed: int) -> None:
        import torch
        from peft import LoraConfig, inject_adapter_in_model

        pipeline = family.pipeline
        for module in pipeline.components.values():
            if isinstance(module, torch.nn.Module):
                module.requires_grad_(False)
                module.eval()
        self.parts = [family.denoiser]
        if options.text_encoder_lr is not None:
            self.parts += [p for p in family.encoders if getattr(pipeline, p, None) is not None]
        self.options = options
        self.modules: dict[str, Any] = {part: getattr(pipeline, part) for part in self.parts}
        self.weights: dict[str, torch.nn.Parameter] = {}
        """By part, path and lora_A or lora_B, sorted."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived(seed, "weights"))
            for part, module in self.modules.items():
                layers = _layers(module, part, options)
                config = LoraConfig(
                    r=options.network_dim,
                    lora_alpha=options.network_alpha,  # pyright: ignore[reportArgumentType]
                    lora_dropout=options.network_dropout,
                    target_modules=layers,
                )
                inject_adapter_in_model(config, module, ADAPTER)
        for part, module in self.modules.items():
            for name, weight in module.named_parameters():
                leaf = _LEAF.search(name)
                if leaf is not None:
                    weight.data = weight.data.float()
                    weight.requires_grad_(True)
                    self.weights[f"{part}.{name[: leaf.start()]}.{leaf[1]}"] = weight
        self.weights = dict(sorted(self.weights.items()))
        if options.gradient_checkpointing:
            for module in self.modules.values():
                module.enable_gradient_checkpointing() if hasattr(
                    module, "enable_gradient_checkpointing"
                ) else module.gradient_checkpointing_enable()

    def training(self, mode: bool) -> None:
        """Whether what is left out by chance is left out."""
        for module in self.modules.values():
            module.train(mode)

    def groups(self) -> list[dict[str, Any]]:
        """Weights for an optimizer, with the learning rate of each part."""
        denoiser, *_ = self.parts
        found: list[dict[str, Any]] = [
            {
                "params": [w for n, w in self.weights.items() if n.startswith(f"{denoiser}.")],
                "lr": self.options.learning_rate,
            }
        ]
        others = [w for n, w in self.weights.items() if not n.startswith(f"{denoiser}.")]
        if others:
            found.append({"params": others, "lr": self.options.text_encoder_lr})
        return found

    def load(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Take weights that were kept."""
        import torch

        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(tensors[name])

    def limit(self, longest: float) -> None:
        """Shorten changes of layers that are longer than allowed."""
        import torch

        scale = self.options.network_alpha / self.options.network_dim
        with torch.no_grad():
            for name, down in self.weights.items():
                if not name.endswith("lora_A"):
                    continue
                up = self.weights[f"{name[:-1]}B"]
                length = torch.linalg.matrix_norm(up.flatten(1) @ down.flatten(1)) * scale
                if float(length) > longest:
                    share = float((longest / length).sqrt())
                    up.mul_(share)
                    down.mul_(share)


def _layers(module: Any, part: str, options: TrainingOptions) -> list[str]:  # noqa: ANN401
    import torch

    reads = part.startswith("text_encoder")
    of_kind = [
        path
        for path, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
    ]
    if reads:
        return [path for path in of_kind if _WORDS.search(path)]
    if options.network_targets == "all":
        return [path for path in of_kind if part != "unet" or _ALL.search(path)]
    return [path for path in of_kind if _ATTENTION.search(path)]


def begun_with(
    names: LayerNames, read: LoraFile, options: TrainingOptions, called: str
) -> "dict[str, torch.Tensor]":
    """Weights of a LoRA that a training begins with, by the names of `LoraNetworks.weights`.

    Args:
        names: of the pipeline's layers, before the LoRA is on it.
        read: the file.
        options: with the rank it has to have.
        called: its name, for messages.

    Raises:
        InvalidFieldValueError: it is of another rank or kind, or none of its layers is here.
    """
    found: dict[str, torch.Tensor] = {}
    for layer in read.layers.values():
        place = names.find(layer.name)
        if place is None:
            continue
        if "down" not in layer.tensors or "up" not in layer.tensors:
            raise InvalidFieldValueError(
                f"network_weights {called} holds {', '.join(sorted(layer.tensors))} for layer "
                f"{layer.name}, expected a plain LoRA",
                "begin with another LoRA, or with none",
            )
        down, up = layer.tensors["down"].float(), layer.tensors["up"].float()
        if down.shape[0] != options.network_dim:
            raise InvalidFieldValueError(
                f"network_weights {called} has rank {down.shape[0]}, and network_dim is "
                f"{options.network_dim}",
                f"set network_dim to {down.shape[0]}",
            )
        alpha = float(layer.tensors["alpha"]) if "alpha" in layer.tensors else down.shape[0]
        part, path, _ = place
        found[f"{part}.{path}.lora_A"] = down
        found[f"{part}.{path}.lora_B"] = up * (alpha / options.network_alpha)
    if not found:
        raise InvalidFieldValueError(
            f"network_weights {called} has no layer of this model",
            "begin with a LoRA of the same model, or with none",
        )
    return found
