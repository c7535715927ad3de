"""Each way in which trainers name the layers of a LoRA for Flux: put on as it says, or refused."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from safelight.engines.diffusers.model import model_of
from safelight.engines.diffusion import Drawing, add_on, draw
from safelight.errors import InvalidMediaError
from safelight.pixels import Pixels
from safelight.weights.checkpoints import find_checkpoint
from tests.engines.diffusers.flow_models import build_flux
from tests.engines.diffusers.models_folder import models_from

Tensors = dict[str, torch.Tensor]
RANK, ALPHA, STRENGTH = 4, 2.0, 0.7
QKV, OUT = "transformer_blocks.0.attn.to_{}", "transformer_blocks.0.ff.net.2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("flux")
    build_flux(folder / "flux")
    (folder / "loras").mkdir()
    with models_from(folder) as models:
        yield models


def drawn(*loras: str) -> Pixels:
    uses = tuple(add_on("loras", name, STRENGTH) for name in loras)
    made = draw(Drawing(find_checkpoint("flux"), "a red cat", 5, steps=2, loras=uses), 64, 64)[0]
    assert made is not None
    return made


def pair(layer: torch.nn.Linear) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(RANK, layer.in_features), torch.randn(layer.out_features, RANK)


def network() -> torch.nn.Module:
    return model_of(find_checkpoint("flux")).pipeline.transformer


def encoder() -> torch.nn.Module:
    return model_of(find_checkpoint("flux")).pipeline.text_encoder


def files() -> dict[str, tuple[Tensors, dict[str, str], dict[torch.Tensor, torch.Tensor]]]:
    """By form: tensors, metadata, and what is to be added to which weight at strength 1."""
    torch.manual_seed(3)
    net = network()
    out = net.get_submodule(OUT)
    down, up = pair(out)
    words = {
        f"self_attn.{each}": next(
            module
            for name, module in encoder().named_modules()
            if name.endswith(f"layers.0.self_attn.{each}")
        )
        for each in ("q_proj", "out_proj")  # trainers write all of a layer
    }
    parts = [net.get_submodule(QKV.format(each)) for each in "qkv"]
    joined_down, joined_up = torch.randn(RANK, 128), torch.randn(3 * 128, RANK)
    scale, alpha = ALPHA / RANK, torch.tensor(ALPHA)
    joined = (joined_up @ joined_down).chunk(3)

    def named(path: str, a: str, b: str, low: torch.Tensor, high: torch.Tensor) -> Tensors:
        return {f"{path}.{a}.weight": low, f"{path}.{b}.weight": high}

    kohya = {
        **named("lora_unet_double_blocks_0_img_mlp_2", "lora_down", "lora_up", down, up),
        "lora_unet_double_blocks_0_img_mlp_2.alpha": alpha,
        **named(
            "lora_unet_double_blocks_0_img_attn_qkv",
            "lora_down",
            "lora_up",
            joined_down,
            joined_up,
        ),
        "lora_unet_double_blocks_0_img_attn_qkv.alpha": alpha.clone(),
    }
    changes = {out.weight: scale * (up @ down)}
    changes |= {part.weight: scale * change for part, change in zip(parts, joined, strict=True)}
    text: Tensors = {}
    of_text: dict[torch.Tensor, torch.Tensor] = {}
    for name, layer in words.items():
        low, high = pair(layer)
        path = f"lora_te1_text_model_encoder_layers_0_{name.replace('.', '_')}"
        text |= named(path, "lora_down", "lora_up", low, high)
        text[f"{path}.alpha"] = alpha.clone()
        of_text[layer.weight] = scale * (high @ low)
    plain = named(f"transformer.{OUT}", "lora_A", "lora_B", down, up)
    config = {"r": RANK, "lora_alpha": ALPHA, "target_modules": [OUT]}
    told = {f"transformer.{name}": value for name, value in config.items()}
    return {
        "kohya": (kohya, {}, changes),
        "kohya_text": ({**kohya, **text}, {}, {**changes, **of_text}),
        "diffusers": (plain, {}, {out.weight: up @ down}),
        "diffusers_with_metadata": (
            plain,
            {"lora_adapter_metadata": json.dumps(told)},
            {out.weight: scale * (up @ down)},
        ),
        "diffusers_with_alpha": (
            {**plain, f"transformer.{OUT}.alpha": alpha},
            {},
            {out.weight: scale * (up @ down)},
        ),
    }


FORMS = ("kohya", "kohya_text", "diffusers", "diffusers_with_metadata", "diffusers_with_alpha")


@pytest.mark.parametrize("form", FORMS)
def test_each_form_changes_the_weights_as_it_says(folder: Path, form: str):
    held, said, changes = files()[form]
    save_file(held, folder / "loras" / f"{form}.safetensors", metadata=said or None)
    plain, made = drawn(), drawn(form)
    before = {weight: weight.detach().clone() for weight in changes}
    with torch.no_grad():
        for weight, change in changes.items():
            weight += STRENGTH * change
    model_of(find_checkpoint("flux")).encodings.clear()
    wanted = drawn()
    with torch.no_grad():
        for weight, own in before.items():
            weight.copy_(own)
    model_of(find_checkpoint("flux")).encodings.clear()
    assert np.abs(wanted.astype(int) - plain).max() > 1
    assert np.abs(made.astype(int) - wanted).max() <= 1
    assert np.array_equal(drawn(), plain)


@pytest.mark.parametrize(
    ("form", "end"),
    [
        ("loha", ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")),
        ("lokr", ("lokr_w1", "lokr_w2")),
        ("dora", ("lora_down.weight", "lora_up.weight", "dora_scale")),
        ("norms", ("w_norm", "b_norm")),
        ("ia3", ("weight", "on_input")),
        ("first_authors", ("lora_A.weight", "lora_B.weight")),
        ("nothing", ("something",)),
    ],
)
def test_other_forms_are_refused_by_name(folder: Path, form: str, end: tuple[str, ...]):
    held = {f"lora_unet_double_blocks_0_img_mlp_2.{each}": torch.ones(4, 4) for each in end}
    if form == "first_authors":
        start = "diffusion_model.double_blocks.0.img_mlp.2"
        held = {f"{start}.{each}": torch.ones(4, 4) for each in end}
    save_file(held, folder / "loras" / f"{form}.safetensors")
    plain = drawn()
    with pytest.raises(InvalidMediaError, match=f"{form}.safetensors"):
        drawn(form)
    assert np.array_equal(drawn(), plain)
