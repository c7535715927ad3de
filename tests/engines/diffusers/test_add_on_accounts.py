"""Every tensor and field of an embedding, ControlNet or IP-Adapter is used, named, or refused."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from safetensors.torch import load_file, save_file

from examples.untrained import build_untrained
from safelight.engines.diffusers.controlnets import open_controlnet
from safelight.engines.diffusers.drawing import Control
from safelight.engines.diffusers.embeddings import read_embedding, vectors_for
from safelight.engines.diffusers.ip_adapters import account_of_weights, open_encoder
from safelight.engines.diffusers.lora_files import LayerNames, read_lora
from safelight.engines.diffusers.merging import Merging
from safelight.engines.diffusers.model import model_of
from safelight.engines.diffusion import Drawing, add_on, draw
from safelight.errors import (
    DependencyMissingError,
    InvalidMediaError,
    PipelineError,
    UnsafePickleError,
)
from safelight.pixels import Pixels
from safelight.progress import watching
from safelight.weights.checkpoints import find_checkpoint
from tests.engines.diffusers.models_folder import models_from, with_change
from tests.engines.diffusers.test_draw import make_controlnet, make_ip_adapter
from tests.engines.test_single_file import build_controlnet

Tensors = dict[str, torch.Tensor]
SIDE, WIDTH = 64, 32


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("add_ons")
    build_untrained(folder / "tiny")
    make_controlnet(folder)
    make_ip_adapter(folder)
    (folder / "embeddings").mkdir()
    with models_from(folder) as models:
        yield models


@pytest.fixture(scope="module")
def vector() -> torch.Tensor:
    return torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(4))


def drawn(prompt: str = "a photo of the red cat", **more: Any) -> Pixels:
    drawing = Drawing(find_checkpoint("tiny"), prompt, 7, steps=more.pop("steps", 2), **more)
    return draw(drawing, SIDE, SIDE)[0]


def changed(file: Path, change: Callable[[Tensors], Tensors], to: Path) -> Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    tensors = load_file(file)
    save_file(change(tensors), to, {"format": "pt"})
    return to


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda held: {key: tensor for key, tensor in held.items() if key != name}


LAYOUTS: dict[str, Callable[[torch.Tensor, Path], object]] = {
    "alone.safetensors": lambda v, at: save_file({"emb_params": v}, at),
    "named.safetensors": lambda v, at: save_file({"<my-word>": v}, at),
    "flat.safetensors": lambda v, at: save_file({"<my-word>": v[0].clone()}, at),
    "library.bin": lambda v, at: torch.save({"<my-word>": v[0].clone()}, at),
    "webui.pt": lambda v, at: torch.save(
        {"string_to_token": {"*": 265}, "string_to_param": {"*": v}, "name": "x", "step": 4}, at
    ),
}


def test_an_embedding_means_the_same_in_every_layout(models: Path, vector: torch.Tensor):
    made: list[Pixels] = []
    for name, save in LAYOUTS.items():
        save(vector, models / "embeddings" / name)
        stem = name.partition(".")[0]
        word = add_on("embeddings", stem, 1.0)
        with watching(None) as notes:
            made.append(drawn(f"a photo of {stem}", embeddings=(word,)))
        said = [note for note in notes if "embedding" in note]
        assert bool(said) is (stem == "webui"), said
    assert all(np.array_equal(picture, made[0]) for picture in made[1:])
    assert not np.array_equal(made[0], drawn("a photo of alone"))


def test_an_embedding_s_account_names_all_that_it_holds(vector: torch.Tensor, tmp_path: Path):
    LAYOUTS["webui.pt"](vector, tmp_path / "webui.pt")
    found, account = vectors_for(read_embedding(tmp_path / "webui.pt"), {"": WIDTH})
    assert torch.equal(found[""], vector)
    assert account.used == {"string_to_param.*"}
    assert account.unused == {
        "string_to_token": "the word is the file's name",
        "name": "the word is the file's name",
        "step": "of the training",
    }
    both = {"clip_l": vector, "clip_g": torch.ones(2, 48), "t5xxl": torch.ones(1, 64)}
    save_file(both, tmp_path / "wide.safetensors", {"modelspec.title": "x"})
    held = read_embedding(tmp_path / "wide.safetensors")
    found, account = vectors_for(held, {"": WIDTH, "_2": 48})
    assert torch.equal(found["_2"], both["clip_g"])
    assert account.used == {"clip_l", "clip_g"}
    assert account.unused.keys() == {"t5xxl", "modelspec.title"}
    alone, account = vectors_for(held, {"_2": 48})  # as of a refiner
    assert torch.equal(alone["_2"], both["clip_g"])
    assert account.unused["clip_l"] == "the model has no such text encoder"


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"a": torch.ones(1, WIDTH), "b": torch.ones(1, WIDTH)}, "it holds a, b, expected one"),
        ({"clip_l": torch.ones(1, WIDTH), "clip_g": torch.ones(1, 48)}, "expected one"),
        ({"a": torch.ones(1, WIDTH + 1)}, f"are {WIDTH + 1} wide"),
        ({"a": torch.ones(1, 2, WIDTH)}, "expected vectors"),
        ({"a": torch.ones(1, WIDTH, dtype=torch.int32)}, "expected vectors"),
        ({"a": torch.full((1, WIDTH), torch.nan)}, "no finite numbers"),
        ({}, "it holds nothing"),
    ],
)
def test_vectors_of_another_kind_are_refused(held: Tensors, said: str, tmp_path: Path):
    save_file(held, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=said):
        vectors_for(read_embedding(tmp_path / "other.safetensors"), {"": WIDTH})


def test_pickles_that_are_no_embedding_are_refused(models: Path, tmp_path: Path):
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="a list, expected vectors"):
        read_embedding(tmp_path / "list.pt")
    torch.save({"string_to_param": [1]}, tmp_path / "inner.pt")
    with pytest.raises(ValueError, match="no set of vectors"):
        read_embedding(tmp_path / "inner.pt")
    torch.save(torch.nn.ParameterDict({"x": torch.ones(1)}), models / "embeddings" / "code.pt")
    with pytest.raises(UnsafePickleError):
        add_on("embeddings", "code", 1.0)
    (models / "loras").mkdir(exist_ok=True)
    torch.save({}, models / "loras" / "old.pt")
    with pytest.raises(DependencyMissingError, match=r"old\.pt, which is not read"):
        add_on("loras", "old", 1.0)


def test_a_controlnet_s_account_names_what_counts_and_what_does_not(models: Path, tmp_path: Path):
    whole = models / "controlnet" / "edges"
    file = next(whole.glob("*.safetensors")).name
    config = json.loads((whole / "config.json").read_text())
    account = open_controlnet(whole).account
    assert set(load_file(whole / file)) <= account.used
    assert {key for key in config if not key.startswith("_")} <= account.used
    assert not account.unused
    more = models / "controlnet" / "more"
    shutil.copytree(whole, more)
    del config["flip_sin_to_cos"]
    (more / "config.json").write_text(json.dumps({**config, "brand": 3}))
    changed(whole / file, lambda held: {**held, "new.one": torch.zeros(1)}, more / file)
    account = open_controlnet(more).account
    assert account.unused["brand"] == "ControlNetModel has no such field"
    assert account.unused["new.one"] == "the model has no such tensor"
    assert account.assumed == {"flip_sin_to_cos": True}
    net, square = add_on("controlnet", "more", 1.0), np.full((SIDE, SIDE, 3), 90, np.uint8)
    with watching(None) as notes:
        drawn(controlnet=net, control_image=square)
    assert "ControlNet more: took no part: new.one" in "\n".join(notes)
    lacking = tmp_path / "lacking"
    shutil.copytree(whole, lacking)
    changed(whole / file, without("controlnet_mid_block.weight"), lacking / file)
    with pytest.raises(ValueError, match=r"lacks 1 tensors: controlnet_mid_block\.weight"):
        open_controlnet(lacking)


def test_a_controlnet_in_a_single_file_is_used_whole_or_refused(tmp_path: Path):
    held = build_controlnet(tmp_path / "folder", seed=3)
    save_file({**held, "control_model.other": torch.zeros(2)}, tmp_path / "net.safetensors")
    opened = open_controlnet(tmp_path / "net.safetensors")
    assert opened.account.used == held.keys()
    assert opened.account.unused.keys() == {"control_model.other"}
    direct = ControlNetModel.from_pretrained(tmp_path / "folder").state_dict()
    assert all(torch.equal(opened.net.state_dict()[name], direct[name]) for name in direct)
    for gone in ("zero_convs.3.0.bias", "middle_block_out.0.weight", "input_hint_block.4.bias"):
        save_file(without(f"control_model.{gone}")(held), tmp_path / "lacking.safetensors")
        with pytest.raises(ValueError, match="lacks 1 tensors"):
            open_controlnet(tmp_path / "lacking.safetensors")
    name = next(iter(held))
    spoilt = {**held, name: torch.full_like(held[name], torch.nan)}
    save_file(spoilt, tmp_path / "spoilt.safetensors")
    with pytest.raises(ValueError, match="no finite numbers"):
        open_controlnet(tmp_path / "spoilt.safetensors")


def square(left: int) -> Pixels:
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[20:44, left : left + 20] = 255
    return image


def off(one: Pixels, other: Pixels) -> int:
    return int(np.abs(one.astype(int) - other).max())


def test_several_controlnets_add_what_each_of_them_says(models: Path):
    def with_nets(*nets: tuple[float, int]) -> Pixels:
        controls = tuple(
            Control(add_on("controlnet", "edges", weight), square(left)) for weight, left in nets
        )
        return drawn(controls=controls)

    one = with_nets((1.0, 4))
    assert off(with_nets((0.25, 4), (0.75, 4)), one) <= 1
    assert off(with_nets((1.0, 4), (0.0, 36)), one) <= 1
    assert off(with_nets((1.0, 4), (1.0, 36)), one) > 1
    assert np.array_equal(
        drawn(controlnet=add_on("controlnet", "edges", 1.0), control_image=square(4)), one
    )


@pytest.mark.parametrize(
    ("start", "end", "takes_part"),
    [
        (0.0, 1.0, [True, True, True, True]),
        (0.0, 0.5, [True, True, False, False]),
        (0.5, 1.0, [False, False, True, True]),
        (0.25, 0.75, [False, True, True, False]),
    ],
)
def test_a_controlnet_takes_part_from_its_start_to_its_end(
    models: Path, start: float, end: float, takes_part: list[bool]
):
    heard: list[bool] = []

    def listen(unet: object, given: object, named: dict[str, Any]) -> None:
        del unet, given
        residuals = named["down_block_additional_residuals"]
        heard.append(any(bool(each.any()) for each in residuals))

    unet = model_of(find_checkpoint("tiny")).pipeline.unet
    hook = unet.register_forward_pre_hook(listen, with_kwargs=True)
    net = add_on("controlnet", "edges", 1.0)
    try:
        drawn(controls=(Control(net, square(4), start, end),), steps=4)
        assert heard == takes_part
        heard.clear()
        whole = Control(net, square(36))
        drawn(controls=(Control(net, square(4), start, end), whole), steps=4)
        assert heard == [True] * 4
    finally:
        hook.remove()


def test_an_ip_adapter_s_account_names_what_counts_and_what_does_not(models: Path, tmp_path: Path):
    unet = model_of(find_checkpoint("tiny")).pipeline.unet
    folder = models / "ip_adapter" / "face"
    file = folder / "ip-adapter.safetensors"
    held = load_file(file)
    account = account_of_weights(file, unet)
    assert account.used == held.keys()
    assert not account.unused
    more = {
        "ip_adapter.99.to_k_ip.weight": torch.zeros(2),
        "image_proj.other": torch.zeros(2),
        "somebody.elses": torch.zeros(2),
    }
    to = models / "ip_adapter" / "more" / file.name
    account = account_of_weights(changed(file, lambda held: {**held, **more}, to), unet)
    assert account.used == held.keys()
    assert account.unused.keys() == more.keys()
    assert account.unused["ip_adapter.99.to_k_ip.weight"] == "the model has no such layer"
    shutil.copytree(folder / "image_encoder", to.parent / "image_encoder")
    with watching(None) as notes:
        made = drawn(ip_adapter=add_on("ip_adapter", "more", 1.0), reference_images=(square(4),))
    (said,) = [note for note in notes if "took no part" in note]
    assert said.startswith("IP-Adapter more: took no part: ")
    assert "ip_adapter.99.to_k_ip.weight (the model has no such layer)" in said
    like = drawn(ip_adapter=add_on("ip_adapter", "face", 1.0), reference_images=(square(4),))
    assert np.array_equal(made, like)
    for gone, said in (
        ("ip_adapter.1.to_v_ip.weight", "lacks 1 tensors"),
        ("image_proj.proj.weight", "of no kind known here"),
    ):
        lacking = changed(file, without(gone), tmp_path / "lacking.safetensors")
        with pytest.raises(ValueError, match=said):
            account_of_weights(lacking, unet)
    faces = changed(
        file,
        lambda held: {**held, "ip_adapter.0.to_q_lora.down.weight": torch.zeros(2)},
        tmp_path / "faces.safetensors",
    )
    with pytest.raises(ValueError, match="LoRAs of its own"):
        account_of_weights(faces, unet)


def test_what_an_ip_adapter_sees_with_is_whole_and_prepares_pictures_as_it_says(
    models: Path, tmp_path: Path
):
    whole = models / "ip_adapter" / "face" / "image_encoder"
    seen = open_encoder(whole)
    assert seen.processor.crop_size == {"height": 32, "width": 32}
    said = tmp_path / "said"
    shutil.copytree(whole, said)
    prepared = {"image_processor_type": "CLIPImageProcessor", "image_mean": [0.1, 0.2, 0.3]}
    (said / "preprocessor_config.json").write_text(json.dumps(prepared))
    assert list(open_encoder(said).processor.image_mean) == [0.1, 0.2, 0.3]
    file = next(said.glob("*.safetensors"))
    gone = next(name for name in load_file(file) if name.endswith("q_proj.weight"))
    held = without(gone)(load_file(file))
    file.unlink()
    save_file(held, file, {"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 tensors"):
        open_encoder(said)


def test_an_add_on_that_lacks_tensors_is_refused_by_its_name(models: Path):
    file = models / "ip_adapter" / "face" / "ip-adapter.safetensors"
    to = models / "ip_adapter" / "less" / file.name
    changed(file, without("ip_adapter.1.to_k_ip.weight"), to)
    shutil.copytree(file.parent / "image_encoder", to.parent / "image_encoder")
    plain = drawn()
    with pytest.raises(InvalidMediaError, match=r"IP-Adapter less .* lacks 1 tensors"):
        drawn(ip_adapter=add_on("ip_adapter", "less", 1.0), reference_images=(square(4),))
    assert np.array_equal(drawn(), plain)


def test_fields_of_a_lora_s_metadata_are_used_or_named(models: Path, tmp_path: Path):
    pipeline = model_of(find_checkpoint("tiny")).pipeline
    layer = next(p for p, _ in pipeline.unet.named_modules() if p.endswith("attn1.to_q"))
    held = {f"unet.{layer}.lora_A.weight": torch.ones(1, 8)}
    held[f"unet.{layer}.lora_B.weight"] = torch.ones(8, 1)
    metadata = {
        "format": "pt",
        "ss_network_dim": "4",
        "modelspec.title": "x",
        "lora_adapter_metadata": json.dumps({"unet.r": 1, "unet.lora_alpha": 2}),
    }
    save_file(held, tmp_path / "told.safetensors", metadata)
    account = Merging(LayerNames(pipeline)).add(read_lora(tmp_path / "told.safetensors"), 1.0)
    assert account.used == {f"unet.{layer}", "metadata.unet.lora_alpha"}
    assert account.unused == {
        "metadata.unet.r": "the tensors say it themselves",
        "metadata.ss_network_dim": "of the training",
        "metadata.modelspec.title": "about the file",
    }


VALUES = (0, 1, 2, 4, 0.5, "2", "silu", None, True, [2, 4], {})
WAYS = ("drop", "rename", "add", "half", "whole numbers", "shape")


def mutated(folder: Path, to: Path, dice: random.Random) -> tuple[str, str]:
    """A copy of a ControlNet with one change: what was changed, and how."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    if dice.random() < 0.5:
        config = json.loads((to / "config.json").read_text())
        key = dice.choice(sorted(name for name in config if not name.startswith("_")))
        way = dice.choice(("drop", "rename", "value"))
        value = config.pop(key)
        if way == "rename":
            config[f"{key}_"] = value
        if way == "value":
            config[key] = dice.choice(VALUES)
        (to / "config.json").write_text(json.dumps(config))
        return key, way
    file = next(to.glob("*.safetensors"))
    tensors = load_file(file)
    key, way = dice.choice(sorted(tensors)), dice.choice(WAYS)
    file.unlink()
    save_file(with_change(tensors, key, way), file, {"format": "pt"})
    return key, way


def check_nets(models: Path, seeds: range) -> None:
    """Each is refused, draws the same picture, or its account names what makes the difference."""
    whole, to = models / "controlnet" / "edges", models / "controlnet" / "mutated"

    def steered(name: str) -> Pixels:
        net = add_on("controlnet", name, 1.0)
        return drawn(controlnet=net, control_image=square(4), steps=1, guidance_scale=1.0)

    plain = steered("edges")
    refused = same = named = 0
    for seed in seeds:
        what, way = mutated(whole, to, random.Random(seed))
        try:
            made = steered("mutated")
        except PipelineError as error:
            assert error.code != "UNKNOWN_ERROR", (seed, what, str(error))  # noqa: PT017
            refused += 1
            continue
        account = open_controlnet(to).account
        equal = np.array_equal(made, plain)
        same, named = same + equal, named + (not equal)
        if way in ("add", "rename"):
            assert f"{what}_" in account.unused, (seed, what, way)
        if way in ("drop", "rename"):
            assert what in account.assumed, (seed, what, way)
        else:
            assert what in account.used, (seed, what, way)
    assert refused
    assert same + named


def test_changed_controlnets_steer_as_their_account_says_or_are_refused(models: Path):
    check_nets(models, range(12))


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_200_changed_controlnets_steer_as_their_account_says_or_are_refused(models: Path):
    check_nets(models, range(100, 300))
