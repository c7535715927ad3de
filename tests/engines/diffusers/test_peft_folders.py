"""Folders as peft saves them change a model as peft's own merge does, or are refused by name."""

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from examples.untrained import build_untrained
from safelight.engines.diffusers.deltas import UnfitError
from safelight.engines.diffusers.lora_files import LayerNames, read_lora
from safelight.engines.diffusers.merging import Merging
from safelight.engines.diffusers.model import model_of
from safelight.engines.diffusion import Drawing, add_on, draw
from safelight.errors import InvalidMediaError
from safelight.progress import watching
from safelight.weights.checkpoints import find_checkpoint
from safelight.weights.registry import ModelRegistry
from tests.engines.diffusers.models_folder import models_from

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("peft")
    build_untrained(folder / "tiny")
    (folder / "loras").mkdir()
    with models_from(folder) as models:
        yield models


def pipeline() -> Any:
    return model_of(find_checkpoint("tiny")).pipeline


def saved(part: str, config: peft.PeftConfig, folder: Path) -> dict[str, torch.Tensor]:
    """Save an adapter with random weights; what peft itself makes of the part with it."""
    torch.manual_seed(3)
    made = peft.get_peft_model(copy.deepcopy(getattr(pipeline(), part)), config)
    with torch.no_grad():
        for name, tensor in made.named_parameters():
            if tensor.requires_grad and "magnitude" not in name:
                tensor.copy_(torch.randn_like(tensor) * 0.3)
            elif tensor.requires_grad:
                tensor.mul_(1 + 0.3 * torch.rand_like(tensor))
    made.save_pretrained(folder, save_embedding_layers=False)
    return made.merge_and_unload().state_dict()


ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
KINDS: dict[str, tuple[str, Callable[[], peft.PeftConfig]]] = {
    "ranks and alphas": (
        "unet",
        lambda: peft.LoraConfig(
            r=2,
            lora_alpha=3,
            target_modules=[*ATTENTION, "conv1"],
            rank_pattern={"to_q": 4},
            alpha_pattern={"to_k": 7, "mid_block.attentions.0.transformer_blocks.0.attn1.to_q": 1},
        ),
    ),
    "rank-stabilised": (
        "unet",
        lambda: peft.LoraConfig(r=4, lora_alpha=8, target_modules=ATTENTION, use_rslora=True),
    ),
    "dora": (
        "unet",
        lambda: peft.LoraConfig(r=2, lora_alpha=5, target_modules=ATTENTION, use_dora=True),
    ),
    "text encoder": (
        "text_encoder",
        lambda: peft.LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "fc1"]),
    ),
    "loha": (
        "unet",
        lambda: peft.LoHaConfig(r=2, alpha=3, target_modules=[*ATTENTION, "conv1"]),
    ),
    "loha of kernels": (
        "unet",
        lambda: peft.LoHaConfig(r=2, alpha=3, target_modules=["conv1"], use_effective_conv2d=True),
    ),
    "lokr": (
        "unet",
        lambda: peft.LoKrConfig(r=2, alpha=3, target_modules=[*ATTENTION, "conv1"]),
    ),
    "lokr in whole parts": (
        "unet",
        lambda: peft.LoKrConfig(r=64, alpha=32, target_modules=ATTENTION),
    ),
}


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_changes_weights_as_peft_does(models: Path, tmp_path: Path, kind: str):
    part, configured = KINDS[kind]
    wanted = saved(part, configured(), tmp_path)
    module = getattr(pipeline(), part)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    merging = Merging(LayerNames(pipeline()))
    account = merging.add(read_lora(tmp_path), 1.0)
    merging.make()
    try:
        for name, tensor in module.state_dict().items():
            assert torch.allclose(tensor, wanted[name], atol=2e-5), name
        assert any(not torch.equal(before[name], wanted[name]) for name in before)
    finally:
        merging.undo()
    fields = {f"{CONFIG}.{name}" for name in json.loads((tmp_path / CONFIG).read_text())}
    assert fields == {name for name in account.used | account.unused.keys() if name in fields}
    layers = {name.partition(".lora_")[0] for name in load_file(tmp_path / TENSORS)}
    assert len(account.used - fields) <= len(layers)


def test_a_folder_is_an_add_on_like_any_other(models: Path):
    saved("unet", KINDS["ranks and alphas"][1](), models / "loras" / "folder")
    card = find_checkpoint("tiny")

    def drawn(*names: str) -> np.ndarray:
        loras = tuple(add_on("loras", name, 1.0) for name in names)
        return draw(Drawing(card, "a red cat", 5, steps=2, loras=loras), 64, 64)[0]

    plain = drawn()
    with watching(None) as notes:
        styled = drawn("folder")
    assert not np.array_equal(styled, plain)
    assert any(f"LoRA folder: took no part: {CONFIG}." in note for note in notes)
    assert np.array_equal(drawn(), plain)
    registry = ModelRegistry()
    registry.scan()
    assert registry.get_model("folder", "lora").file_path == models / "loras" / "folder"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3', expected LORA, LOHA, LOKR"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is 'True'"),
        ({"something_new": 3}, "something_new is '3', which is not known here"),
        ({"lora_alpha": None}, "lora_alpha is None, expected a number"),
        ({"use_dora": True}, "it holds no magnitudes"),
        ({"auto_mapping": {"base_model_class": "LlamaModel"}}, "made for a LlamaModel"),
    ],
)
def test_a_config_that_says_what_is_not_known_is_refused_by_name(
    models: Path, change: dict[str, object], said: str
):
    folder = models / "loras" / "other"
    shutil.rmtree(folder, ignore_errors=True)
    saved("unet", KINDS["rank-stabilised"][1](), folder)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **change}))
    with pytest.raises(UnfitError, match=said):
        read_lora(folder)
    drawing = Drawing(find_checkpoint("tiny"), "a cat", 5, steps=1)
    with pytest.raises(InvalidMediaError, match="LoRA other cannot be put on model tiny"):
        draw(replace(drawing, loras=(add_on("loras", "other", 1.0),)), 64, 64)


def test_tensors_that_peft_saves_beside_a_lora_are_refused(models: Path, tmp_path: Path):
    saved("unet", KINDS["rank-stabilised"][1](), tmp_path)
    held = load_file(tmp_path / TENSORS)
    for name in ("base_model.model.conv_in.weight", "base_model.model.conv_in.bias"):
        save_file({**held, name: torch.ones(1)}, tmp_path / TENSORS)
        merging = Merging(LayerNames(pipeline()))
        with pytest.raises(UnfitError):
            put_on(merging, tmp_path)
        merging.undo()


def put_on(merging: Merging, folder: Path) -> None:
    merging.add(read_lora(folder), 1.0)
    merging.make()


@pytest.mark.parametrize("there", [(), (TENSORS,), (CONFIG,), (CONFIG, "adapter_model.bin")])
def test_a_folder_that_is_no_adapter_is_refused_before_a_model_is_loaded(
    models: Path, there: tuple[str, ...]
):
    folder = models / "loras" / "half"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in there:
        (folder / name).write_bytes(b"{}")
    missing = next(name for name in (CONFIG, TENSORS) if name not in there)
    with pytest.raises(InvalidMediaError, match=missing) as caught:
        add_on("loras", "half", 1.0)
    assert ("adapter_model.bin is not read" in str(caught.value)) is ("adapter_model.bin" in there)
    assert "save_pretrained" in caught.value.remedy
