"""Whatever a model's files say or leave out is used, named with a reason, or refused."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from examples.untrained import build_untrained
from safelight.engines.diffusers.deltas import UnfitError
from safelight.engines.diffusers.lora_files import LayerNames, read_lora
from safelight.engines.diffusers.merging import Merging
from safelight.engines.diffusers.model import load_model, model_of
from safelight.engines.diffusion import Drawing, draw
from safelight.engines.machine.loaded import forget_loaded
from safelight.errors import InvalidMediaError, PictureRefusedError, PipelineError
from safelight.pixels import Pixels
from safelight.progress import watching
from safelight.weights.checkpoints import find_checkpoint
from tests.engines.diffusers.models_folder import models_from, with_change
from tests.engines.test_single_file import build

Tensors = dict[str, torch.Tensor]
PARTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
CONFIGS = {
    **dict.fromkeys(PARTS, "config.json"),
    "scheduler": "scheduler_config.json",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Holds a folder `whole`; `made` puts others beside it."""
    folder = tmp_path_factory.mktemp("accounts")
    build_untrained(folder / "whole")
    with models_from(folder) as models:
        yield models


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    return build(tmp_path_factory.mktemp("narrow") / "folder", seed=4)


def drawn(name: str) -> Pixels:
    card = find_checkpoint(name)
    return draw(Drawing(card, "a red cat", 5, steps=2, guidance_scale=3.0), 64, 64)[0]


def tensors_of(part: str) -> Callable[[Path], Path]:
    return lambda folder: folder / part / PARTS[part]


def changed(models: Path, name: str, file: Path, change: Callable[[Any], Any]) -> str:
    """A copy of the whole model of which one file is changed; its name."""
    shutil.rmtree(models / name, ignore_errors=True)
    shutil.copytree(models / "whole", models / name)
    path = models / name / file
    if path.suffix == ".json":
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
    else:
        tensors = load_file(path)
        path.unlink()
        save_file(change(tensors), path, {"format": "pt"})
    return name


def account_of(name: str) -> Any:
    return load_model(find_checkpoint(name), "cpu", "fp32").account


def without(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda held: {name: value for name, value in held.items() if name != key}


def test_a_single_file_is_used_whole_and_what_it_has_besides_is_named(models: Path, held: Tensors):
    more = {
        "model_ema.decay": torch.zeros(1),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.zeros(1, 77),
        "betas": torch.zeros(1000),
        "somebody.elses": torch.zeros(2),
        "model.diffusion_model.input_blocks.3.0.other.weight": torch.zeros(2),
    }
    save_file({**held, **more}, models / "narrow.safetensors")
    account = account_of("narrow")
    assert account.used == held.keys()
    assert account.unused.keys() == more.keys()
    assert "averages" in account.unused["model_ema.decay"]
    assert account.unused["somebody.elses"] == "the model has no such tensor"


@pytest.mark.parametrize(
    "start",
    ["model.diffusion_model.output", "first_stage_model.decoder", "cond_stage_model"],
)
def test_a_single_file_without_one_of_its_tensors_is_refused(
    models: Path, held: Tensors, start: str
):
    gone = next(name for name in held if name.startswith(start) and name.endswith("bias"))
    save_file(without(gone)(held), models / "lacking.safetensors")
    with pytest.raises(InvalidMediaError, match="lack"):
        account_of("lacking")


def test_a_single_file_that_was_trained_with_other_noise_is_refused(models: Path, held: Tensors):
    noise = torch.cumprod(1 - torch.linspace(0.0001, 0.02, 1000), 0)
    save_file({**held, "alphas_cumprod": noise}, models / "noisy.safetensors")
    with pytest.raises(InvalidMediaError, match="other noise"):
        account_of("noisy")


@pytest.mark.parametrize("part", PARTS)
def test_a_folder_lacks_no_tensor_and_names_what_it_has_besides(models: Path, part: str):
    file = Path(part) / PARTS[part]
    first = sorted(load_file(models / "whole" / file))[3]
    lacking = changed(models, "lacking", file, without(first))
    with pytest.raises(InvalidMediaError, match=f"{part} of model lacking lacks 1 tensors"):
        account_of(lacking)
    more = changed(models, "more", file, lambda held: {**held, "new.one": torch.zeros(1)})
    assert account_of(more).unused == {f"{part}.new.one": "the model has no such tensor"}


def test_fields_that_no_class_reads_and_those_that_are_left_out_are_noted(models: Path):
    changed(models, "unread", Path("unet/config.json"), lambda held: {**held, "brand": 3})
    file = Path("scheduler/scheduler_config.json")
    changed(models, "unsaid", file, without("beta_schedule"))
    with watching(None) as notes:
        same, other = drawn("unread"), drawn("unsaid")
    assert np.array_equal(same, drawn("whole"))
    assert not np.array_equal(other, same)
    said = "\n".join(notes)
    assert "model unread: took no part: unet.brand (UNet2DConditionModel has no such field)" in said
    assert "model unsaid: assumed" in said
    assert "scheduler.beta_schedule linear" in said


def test_weights_that_are_no_numbers_are_refused(models: Path):
    def spoilt(held: Tensors) -> Tensors:
        held["decoder.conv_out.bias"][0] = torch.nan
        return held

    name = changed(models, "spoilt", Path("vae") / PARTS["vae"], spoilt)
    with pytest.raises(InvalidMediaError, match=r"vae.decoder.conv_out.bias"):
        account_of(name)


VALUES = (0, 1, 2, 3, -1, 0.5, "2", "linear", None, True, [4, 8], [8], {})


def mutated(models: Path, dice: random.Random) -> tuple[str, str, str]:
    """A copy of the whole model with one change: its name, what was changed, and how."""
    if dice.random() < 0.5:
        part = dice.choice(sorted(CONFIGS))
        file = Path(part) / CONFIGS[part]
        config = json.loads((models / "whole" / file).read_text())
        key = dice.choice(sorted(name for name in config if not name.startswith("_")))
        way = dice.choice(("drop", "rename", "value"))

        def change(config: dict[str, Any]) -> dict[str, Any]:
            value = config.pop(key)
            if way == "rename":
                config[f"{key}_"] = value
            if way == "value":
                config[key] = dice.choice(VALUES)
            return config

        return changed(models, "mutated", file, change), f"{part}.{key}", way
    part = dice.choice(sorted(PARTS))
    file = Path(part) / PARTS[part]
    key = dice.choice(sorted(load_file(models / "whole" / file)))
    way = dice.choice(("drop", "rename", "add", "half", "whole numbers", "shape"))

    name = changed(models, "mutated", file, lambda held: with_change(held, key, way))
    return name, f"{part}.{key}", way


def check_folders(models: Path, seeds: range) -> None:
    """Each is refused, draws the same picture, or its account names what makes the difference."""
    whole = drawn("whole")
    outcomes = {"refused": 0, "same": 0, "named": 0}
    for seed in seeds:
        name, what, way = mutated(models, random.Random(seed))
        try:
            other = drawn(name)
        except PipelineError as error:
            foreseen = error.code != "UNKNOWN_ERROR" or isinstance(error, PictureRefusedError)
            assert foreseen, (seed, what, str(error))  # noqa: PT017
            outcomes["refused"] += 1
            continue
        account = model_of(find_checkpoint(name)).account
        same = np.array_equal(other, whole)
        outcomes["same" if same else "named"] += 1
        if way == "add" or (way == "rename" and not same):
            assert f"{what}_" in account.unused, (seed, what)
        if way in ("drop", "rename") and not same:
            assert what in account.assumed, (seed, what)
        if way not in ("drop", "rename"):
            assert what in account.used, (seed, what)
        forget_loaded()
    assert outcomes["refused"], outcomes
    assert outcomes["same"] + outcomes["named"], outcomes


def test_changed_folders_are_drawn_as_their_account_says_or_refused(models: Path):
    check_folders(models, range(10))


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_250_changed_folders_are_drawn_as_their_account_says_or_refused(models: Path):
    check_folders(models, range(100, 350))


def a_lora(unet: torch.nn.Module) -> Tensors:
    found = [(n, m) for n, m in unet.named_modules() if n.endswith(("to_q", "to_k", "to_v"))]
    held: Tensors = {}
    for rank, (name, layer) in enumerate(found, 1):
        start = f"lora_unet_{name.replace('.', '_')}"
        held[f"{start}.lora_down.weight"] = torch.randn(rank, layer.in_features)
        held[f"{start}.lora_up.weight"] = torch.randn(layer.out_features, rank)
        held[f"{start}.alpha"] = torch.tensor(rank / 2)
    return held


def check_loras(models: Path, folder: Path, seeds: range) -> None:
    """Each is refused, or changes every layer by what its tensors say, and no other."""
    pipeline = load_model(find_checkpoint("whole"), "cpu", "fp32").pipeline
    torch.manual_seed(2)
    held = a_lora(pipeline.unet)
    refused = made = 0
    for seed in seeds:
        dice = random.Random(seed)
        tensors = dict(held)
        key = dice.choice(sorted(tensors))
        way = dice.choice(("drop", "rename", "layer", "half", "whole", "shape"))
        layer = key.partition(".")[0]
        tensor = tensors.pop(key)
        if way == "rename":
            tensors[f"{key}_"] = tensor
        if way == "layer":
            tensors = {n.replace(f"{layer}.", f"{layer}_x."): t for n, t in held.items()}
        if way in ("half", "whole"):
            tensors[key] = tensor.half() if way == "half" else (tensor * 9).to(torch.int32)
        if way == "shape":
            tensors[key] = torch.cat([tensor.reshape(-1, *tensor.shape[1:])] * 2)
        save_file(tensors, folder / "changed.safetensors")
        before = {n: p.detach().clone() for n, p in pipeline.unet.named_parameters()}
        merging = Merging(LayerNames(pipeline))
        try:
            account = merging.add(read_lora(folder / "changed.safetensors"), 0.7)
            merging.make()
        except (UnfitError, RuntimeError):
            refused += 1
            merging.undo()
            assert all(torch.equal(before[n], p) for n, p in pipeline.unet.named_parameters())
            continue
        made += 1
        assert account.used | account.unused.keys() == {n.partition(".")[0] for n in tensors}
        assert account.unused.keys() == ({f"{layer}_x"} if way == "layer" else set())
        for name, parameter in pipeline.unet.named_parameters():
            start = f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}"
            wanted = before[name]
            if start in account.used:
                down = tensors[f"{start}.lora_down.weight"].float()
                up = tensors[f"{start}.lora_up.weight"].float()
                alpha = tensors.get(f"{start}.alpha", torch.tensor(float(len(down))))
                wanted = wanted + 0.7 * float(alpha) / len(down) * (up @ down)
            assert torch.allclose(parameter, wanted, atol=1e-4), (seed, way, key, name)
        merging.undo()
    assert refused
    assert made


def test_changed_loras_change_what_their_tensors_say_or_are_refused(models: Path, tmp_path: Path):
    check_loras(models, tmp_path, range(20))


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_250_changed_loras_change_what_they_say_or_are_refused(models: Path, tmp_path: Path):
    check_loras(models, tmp_path, range(100, 350))
