"""LoRA files as trainers write them, on whole models: which layer, how much, and off again."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file

from examples.untrained import build_untrained
from safelight.engines.diffusers.deltas import UnfitError
from safelight.engines.diffusers.lora_files import LayerNames, read_lora
from safelight.engines.diffusers.merging import Merging
from tests.engines.test_single_file import build_xl


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionPipeline:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    build_untrained(folder)
    return StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, requires_safety_checker=False
    )


def merged(pipeline: StableDiffusionPipeline, path: Path, *strengths: float) -> Merging:
    merging = Merging(LayerNames(pipeline))
    for strength in strengths:
        assert merging.add(read_lora(path), strength).said() is None
    merging.make()
    return merging


def weights(pipeline: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    parts = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    return {
        f"{part}.{name}": tensor.clone()
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }


NAMES = {
    "underscores": ("lora_unet_{}.lora_down.weight", "lora_unet_{}.lora_up.weight", True),
    "peft": ("unet.{}.lora_A.weight", "unet.{}.lora_B.weight", False),
    "peft's own": ("base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight", False),
    "early diffusers": ("unet.{}.lora.down.weight", "unet.{}.lora.up.weight", False),
}


@pytest.mark.parametrize("kind", NAMES)
def test_the_same_lora_under_any_name_changes_the_same_layers_and_nothing_stays(
    pipeline: StableDiffusionPipeline, tmp_path: Path, kind: str
):
    down_name, up_name, underscores = NAMES[kind]
    before = weights(pipeline)
    held: dict[str, torch.Tensor] = {}
    wanted = dict(before)
    draw = torch.Generator().manual_seed(3)
    for at, (path, layer) in enumerate(pipeline.unet.named_modules()):
        if not isinstance(layer, torch.nn.Linear) or "attn" not in path:
            continue
        rank = (1, 4, 8)[at % 3]
        down = torch.randn(rank, layer.in_features, generator=draw)
        up = torch.randn(layer.out_features, rank, generator=draw)
        name = path.replace(".", "_") if underscores else path
        held |= {down_name.format(name): down, up_name.format(name): up}
        if underscores:
            held[f"lora_unet_{name}.alpha"] = torch.tensor(float(at % 5 + 1))
        scale = (at % 5 + 1) / rank if underscores else 1.0
        wanted[f"unet.{path}.weight"] = layer.weight + 0.75 * scale * (up @ down)
    save_file(held, tmp_path / "style.safetensors")
    merging = merged(pipeline, tmp_path / "style.safetensors", 0.5, 0.25)
    after = weights(pipeline)
    assert all(torch.allclose(after[name], wanted[name], atol=1e-4) for name in before)
    assert sum(not torch.equal(after[name], before[name]) for name in before) == len(
        {name.partition(".lora")[0] for name in held if "alpha" not in name}
    )
    merging.undo()
    assert all(torch.equal(weights(pipeline)[name], before[name]) for name in before)


def test_text_encoders_have_a_strength_of_their_own(
    pipeline: StableDiffusionPipeline, tmp_path: Path
):
    before = weights(pipeline)
    draw = torch.Generator().manual_seed(5)
    held: dict[str, torch.Tensor] = {}
    wanted = dict(before)
    parts = (("unet", "lora_unet_", 0.5), ("text_encoder", "lora_te_", -1.25))
    for part, start, strength in parts:
        for path, layer in getattr(pipeline, part).named_modules():
            if not isinstance(layer, torch.nn.Linear) or "attn" not in path:
                continue
            down = torch.randn(4, layer.in_features, generator=draw)
            up = torch.randn(layer.out_features, 4, generator=draw)
            name = f"{start}{path.replace('.', '_')}"
            held |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
            wanted[f"{part}.{path}.weight"] = layer.weight + strength * (up @ down)
    save_file(held, tmp_path / "both.safetensors")
    merging = Merging(LayerNames(pipeline))
    assert merging.add(read_lora(tmp_path / "both.safetensors"), 0.5, -1.25).said() is None
    merging.make()
    after = weights(pipeline)
    assert all(torch.allclose(after[name], wanted[name], atol=1e-4) for name in before)
    changed = [name for name in before if not torch.equal(after[name], before[name])]
    assert {name.partition(".")[0] for name in changed} == {"unet", "text_encoder"}
    assert len(changed) == len(held) // 2
    merging.undo()


def test_the_names_of_the_first_code_lead_to_diffusers_layers(tmp_path: Path):
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    held = build_xl(tmp_path / "xl", seed=2)
    pipeline = StableDiffusionXLPipeline.from_pretrained(tmp_path / "xl")
    prefix = "model.diffusion_model."
    names = LayerNames(pipeline)
    unet = {name: tensor for name, tensor in held.items() if name.startswith(prefix)}
    converted = convert_ldm_unet_checkpoint(dict(unet), dict(pipeline.unet.config))
    by_content = {tensor.data_ptr(): name for name, tensor in converted.items()}
    seen = 0
    for name, tensor in unet.items():
        if not name.endswith(".weight") or tensor.data_ptr() not in by_content:
            continue
        wanted = by_content[tensor.data_ptr()].removesuffix(".weight")
        layer = name.removeprefix(prefix).removesuffix(".weight")
        for written in (f"lora_unet_{layer.replace('.', '_')}", f"diffusion_model.{layer}"):
            found = names.find(written)
            assert found is not None, written
            assert found[1] == wanted
            seen += 1
    assert seen > 60
    for written, part in (("lora_te1", "text_encoder"), ("lora_te2", "text_encoder_2")):
        found = names.find(f"{written}_text_model_encoder_layers_0_self_attn_q_proj")
        assert found is not None
        assert found[0] == part


def test_biases_norms_and_the_alphas_of_the_metadata_count(
    pipeline: StableDiffusionPipeline, tmp_path: Path
):
    norm = next(p for p, m in pipeline.unet.named_modules() if isinstance(m, torch.nn.LayerNorm))
    linear = next(
        p
        for p, m in pipeline.unet.named_modules()
        if isinstance(m, torch.nn.Linear) and m.bias is not None
    )
    query = next(p for p, _ in pipeline.unet.named_modules() if p.endswith("attn1.to_q"))
    before = weights(pipeline)
    shape = before[f"unet.{query}.weight"].shape
    up, down = torch.ones(shape[0], 2), torch.ones(2, shape[1])
    held = {
        f"lora_unet_{norm.replace('.', '_')}.w_norm": torch.ones_like(
            before[f"unet.{norm}.weight"]
        ),
        f"lora_unet_{norm.replace('.', '_')}.b_norm": torch.ones_like(before[f"unet.{norm}.bias"]),
        f"unet.{linear}.diff_b": torch.ones_like(before[f"unet.{linear}.bias"]),
        f"unet.{query}.lora_A.weight": down,
        f"unet.{query}.lora_B.weight": up,
    }
    metadata = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 6})}
    save_file(held, tmp_path / "all.safetensors", metadata=metadata)
    merging = merged(pipeline, tmp_path / "all.safetensors", 0.5)
    after = weights(pipeline)
    for name in (f"unet.{norm}.weight", f"unet.{norm}.bias", f"unet.{linear}.bias"):
        assert torch.allclose(after[name], before[name] + 0.5)
    assert torch.equal(after[f"unet.{linear}.weight"], before[f"unet.{linear}.weight"])
    changed = after[f"unet.{query}.weight"] - before[f"unet.{query}.weight"]
    assert torch.allclose(changed, torch.full(shape, 0.5 * 6 / 2 * 2), atol=1e-5)
    merging.undo()


def test_layers_that_the_model_lacks_are_named_and_other_kinds_are_refused(
    pipeline: StableDiffusionPipeline, tmp_path: Path
):
    query = next(p for p, _ in pipeline.unet.named_modules() if p.endswith("attn1.to_q"))
    width = pipeline.unet.get_submodule(query).in_features
    held = {f"unet.{query}.lora_A.weight": torch.ones(1, width)}
    held[f"unet.{query}.lora_B.weight"] = torch.ones(width, 1)
    strange = {
        f"lora_te2_text_model_layers_{n}.lora_down.weight": torch.ones(1, 2) for n in range(7)
    }
    save_file(held | strange, tmp_path / "some.safetensors")
    said = Merging(LayerNames(pipeline)).add(read_lora(tmp_path / "some.safetensors"), 1.0).said()
    assert said is not None
    assert "lora_te2_text_model_layers_0, " in said
    assert said.endswith("and 2 more (the model has no such layer)")
    save_file(strange, tmp_path / "none.safetensors")
    with pytest.raises(UnfitError, match="no layer of this model"):
        Merging(LayerNames(pipeline)).add(read_lora(tmp_path / "none.safetensors"), 1.0)
    other = {**held, "lora_unet_mid_block.oft_blocks": torch.ones(2, 2)}
    save_file(other, tmp_path / "oft.safetensors")
    with pytest.raises(UnfitError, match="oft_blocks"):
        Merging(LayerNames(pipeline)).add(read_lora(tmp_path / "oft.safetensors"), 1.0)


def test_a_change_that_fails_half_way_leaves_no_trace(
    pipeline: StableDiffusionPipeline, tmp_path: Path
):
    queries = [
        p for p, _ in pipeline.unet.named_modules() if p.endswith(("attn1.to_q", "attn1.to_k"))
    ]
    width = pipeline.unet.get_submodule(queries[0]).in_features
    held = {f"unet.{queries[0]}.lora_A.weight": torch.ones(1, width)}
    held[f"unet.{queries[0]}.lora_B.weight"] = torch.ones(width, 1)
    held[f"unet.{queries[1]}.diff"] = torch.ones(3, 3)
    save_file(held, tmp_path / "bad.safetensors")
    before = weights(pipeline)
    merging = Merging(LayerNames(pipeline))
    merging.add(read_lora(tmp_path / "bad.safetensors"), 1.0)
    with pytest.raises(UnfitError, match=queries[1]):
        merging.make()
    merging.undo()
    assert all(torch.equal(weights(pipeline)[name], before[name]) for name in before)
