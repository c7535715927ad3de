"""Each way in which trainers name the layers of a LoRA for Flux: put on as it says, or refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from safelight.engines.diffusers.model import model_of
from safelight.engines.diffusion import Drawing, add_on, draw
from safelight.errors import InvalidMediaError
from safelight.pixels import Pixels
from safelight.progress import watching
from safelight.weights.checkpoints import find_checkpoint
from tests.engines.diffusers.flow_models import build_flux, build_sd3
from tests.engines.diffusers.models_folder import models_from

Tensors = dict[str, torch.Tensor]
RANK, ALPHA, STRENGTH = 4, 2.0, 0.7
QKV, OUT = "transformer_blocks.0.attn.to_{}", "transformer_blocks.0.ff.net.2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("flux")
    build_flux(folder / "flux")
    build_sd3(folder / "sd3")
    (folder / "loras").mkdir()
    with models_from(folder) as models:
        yield models


def drawn(*loras: str, model: str = "flux") -> Pixels:
    uses = tuple(add_on("loras", name, STRENGTH) for name in loras)
    made = draw(Drawing(find_checkpoint(model), "a red cat", 5, steps=2, loras=uses), 64, 64)[0]
    assert made is not None
    return made


def pair(layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(RANK, layer.in_features), torch.randn(layer.out_features, RANK)


def network(model: str = "flux") -> Any:
    return model_of(find_checkpoint(model)).pipeline.transformer


def encoder() -> Any:
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
    require_same_picture(form, "flux", changes)


def require_same_picture(form: str, model: str, changes: dict[torch.Tensor, torch.Tensor]) -> None:
    """What the file draws is what the changes draw, written into the weights by hand."""
    plain, made = drawn(model=model), drawn(form, model=model)
    before = {weight: weight.detach().clone() for weight in changes}
    with torch.no_grad():
        for weight, change in changes.items():
            weight += STRENGTH * change
    model_of(find_checkpoint(model)).encodings.clear()
    wanted = drawn(model=model)
    with torch.no_grad():
        for weight, own in before.items():
            weight.copy_(own)
    model_of(find_checkpoint(model)).encodings.clear()
    assert np.abs(wanted.astype(int) - plain).max() > 1
    assert np.abs(made.astype(int) - wanted).max() <= 1
    assert np.array_equal(drawn(model=model), plain)


FIRST = {
    "flux": {
        "double_blocks.1.img_attn.qkv": [f"transformer_blocks.1.attn.to_{each}" for each in "qkv"],
        "double_blocks.0.txt_mlp.0": ["transformer_blocks.0.ff_context.net.0.proj"],
        "single_blocks.1.linear1": [
            *(f"single_transformer_blocks.1.attn.to_{each}" for each in "qkv"),
            "single_transformer_blocks.1.proj_mlp",
        ],
        "final_layer.adaLN_modulation.1": ["norm_out.linear"],
    },
    "sd3": {
        "joint_blocks.0.x_block.attn2.qkv": [
            f"transformer_blocks.0.attn2.to_{each}" for each in "qkv"
        ],
        "joint_blocks.1.context_block.attn.qkv": [
            f"transformer_blocks.1.attn.add_{each}_proj" for each in "qkv"
        ],
        "joint_blocks.2.context_block.adaLN_modulation.1": [
            "transformer_blocks.2.norm1_context.linear"
        ],
        "joint_blocks.1.x_block.mlp.fc1": ["transformer_blocks.1.ff.net.0.proj"],
        "final_layer.adaLN_modulation.1": ["norm_out.linear"],
        "t_embedder.mlp.2": ["time_text_embed.timestep_embedder.linear_2"],
    },
}
"""Layers of the first authors' networks, and those of diffusers' that lie in them in this order."""
TURNED = ("norm_out.linear", "transformer_blocks.2.norm1_context.linear")
WRITTEN = {
    "comfyui": ("diffusion_model.{}", "lora_A.weight", "lora_B.weight", False),
    "fal": ("base_model.model.{}", "lora_A.weight", "lora_B.weight", True),
    "bare": ("{}", "lora_down.weight", "lora_up.weight", True),
}


def of_first_authors(
    model: str, how: str, a: str, b: str, *, dots: bool = True, alpha: bool
) -> tuple[Tensors, dict[torch.Tensor, torch.Tensor]]:
    """A file in the first authors' names, and what is to be added to which weight."""
    torch.manual_seed(4)
    held: Tensors = {}
    changes: dict[torch.Tensor, torch.Tensor] = {}
    net = network(model)
    for theirs, ours in FIRST[model].items():
        weights = [net.get_parameter(f"{path}.weight") for path in ours]
        rows = [len(weight) for weight in weights]
        down, up = torch.randn(RANK, weights[0].shape[1]), torch.randn(sum(rows), RANK)
        name = how.format(theirs if dots else theirs.replace(".", "_"))
        held |= {f"{name}.{a}": down, f"{name}.{b}": up}
        if alpha:
            held[f"{name}.alpha"] = torch.tensor(ALPHA)
        change = (up @ down) * (ALPHA / RANK if alpha else 1.0) / 4
        held[f"{name}.{b}"] = up / 4
        for path, weight, part in zip(ours, weights, change.split(rows), strict=True):
            shift, scale = part.chunk(2)
            changes[weight] = torch.cat([scale, shift]) if path in TURNED else part
    return held, changes


@pytest.mark.parametrize("model", FIRST)
@pytest.mark.parametrize("written", WRITTEN)
def test_names_of_the_first_authors_change_the_same_weights(folder: Path, model: str, written: str):
    how, a, b, alpha = WRITTEN[written]
    held, changes = of_first_authors(model, how, a, b, alpha=alpha)
    form = f"{model}_{written}"
    save_file(held, folder / "loras" / f"{form}.safetensors")
    require_same_picture(form, model, changes)


def test_kohyas_names_of_stable_diffusion_3_change_the_same_weights(folder: Path):
    held, changes = of_first_authors(
        "sd3", "lora_unet_{}", "lora_down.weight", "lora_up.weight", dots=False, alpha=True
    )
    encoder: Any = model_of(find_checkpoint("sd3")).pipeline.text_encoder_2
    for each in ("q_proj", "k_proj", "v_proj", "out_proj"):
        path = next(
            name
            for name, _ in encoder.named_modules()
            if name.endswith(f"layers.0.self_attn.{each}")
        )
        layer: Any = encoder.get_submodule(path)
        down, up = pair(layer)
        name = f"lora_te2_text_model_encoder_layers_0_self_attn_{each}"
        held |= {
            f"{name}.lora_down.weight": down,
            f"{name}.lora_up.weight": up,
            f"{name}.alpha": torch.tensor(ALPHA),
        }
        changes[layer.weight] = ALPHA / RANK * (up @ down)
    save_file(held, folder / "loras" / "sd3_kohya.safetensors")
    require_same_picture("sd3_kohya", "sd3", changes)


@pytest.mark.parametrize(("model", "other"), [("flux", "sd3"), ("sd3", "flux")])
def test_layers_of_another_network_are_no_layers_of_this_one(folder: Path, model: str, other: str):
    how, a, b, alpha = WRITTEN["comfyui"]
    held = of_first_authors(other, how, a, b, alpha=alpha)[0]
    blocks = {name: held[name] for name in held if "_blocks." in name}
    save_file(blocks, folder / "loras" / "of_another.safetensors")
    with pytest.raises(InvalidMediaError, match="it holds no layer of this model"):
        drawn("of_another", model=model)


def test_layers_of_the_first_authors_that_the_model_lacks_are_named(folder: Path):
    how, a, b, alpha = WRITTEN["comfyui"]
    held = of_first_authors("flux", how, a, b, alpha=alpha)[0]
    name = "diffusion_model.double_blocks.17.img_mlp.2"
    held |= {f"{name}.{each}": torch.ones(4, 4) for each in (a, b)}
    save_file(held, folder / "loras" / "longer.safetensors")
    with watching(None) as notes:
        drawn("longer")
    assert f"{name} (the model has no such layer)" in "; ".join(notes)


@pytest.mark.parametrize(
    ("form", "end"),
    [
        ("loha", ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")),
        ("lokr", ("lokr_w1", "lokr_w2")),
        ("dora", ("lora_down.weight", "lora_up.weight", "dora_scale")),
        ("norms", ("w_norm", "b_norm")),
        ("ia3", ("weight", "on_input")),
        ("first_authors", ("lora_A.weight", "lora_B.weight")),
        ("first_authors", ("lora_A.weight",)),
        ("first_authors", ("lora_A.weight", "lora_B.weight", "diff_b")),
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
