"""Single files of Stable Diffusion 3 and Flux draw what their folders draw; what lacks is named."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel
from safetensors.torch import load_file, save_file

from safelight.engines.diffusers.draw import identity
from safelight.engines.diffusers.model import model_of
from safelight.engines.diffusion import Drawing, add_on, draw
from safelight.engines.machine.loaded import forget_loaded, loaded_stats
from safelight.errors import DependencyMissingError, InvalidFieldValueError, InvalidMediaError
from safelight.pixels import Pixels
from safelight.progress import watching
from safelight.weights.checkpoints import find_checkpoint
from safelight.weights.registry import registry
from tests.engines.diffusers.flow_models import (
    build_flux,
    build_sd3,
    clip_tensors,
    flux_tensors,
    plain,
    sd3_tensors,
    vae_tensors,
)
from tests.engines.diffusers.models_folder import models_from

Tensors = dict[str, torch.Tensor]


def under(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def without_projection(tensors: Tensors) -> Tensors:
    return {name: held for name, held in tensors.items() if name != "text_projection.weight"}


def loose(folder: Path, pipeline: Any, t5: str, **names: Tensors) -> None:
    """Text encoders and VAE as ComfyUI's users keep them."""
    for place, file, tensors in (
        ("clip", "clip_l", without_projection(clip_tensors(pipeline.text_encoder))),
        ("text_encoders", "t5xxl_fp16", getattr(pipeline, t5).state_dict()),
    ):
        (folder / place).mkdir(exist_ok=True)
        save_file(plain(tensors), folder / place / f"{file}.safetensors")
    for place_and_file, tensors in names.items():
        place, _, file = place_and_file.partition("__")
        (folder / place).mkdir(exist_ok=True)
        save_file(plain(tensors), folder / place / f"{file}.safetensors")


@pytest.fixture(scope="module")
def flux_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flux")
    pipeline = build_flux(folder / "whole")
    network = flux_tensors(pipeline.transformer.state_dict())
    (folder / "unet").mkdir()
    save_file(plain(network), folder / "unet" / "alone.safetensors")
    loose(folder, pipeline, "text_encoder_2", vae__ae=vae_tensors(pipeline.vae))
    parts = folder / "parts" / "flux"
    pipeline.tokenizer_2.save_pretrained(parts / "tokenizer_2")
    everything = {
        **under("model.diffusion_model.", network),
        **under("text_encoders.clip_l.transformer.", clip_tensors(pipeline.text_encoder)),
        **under("text_encoders.t5xxl.transformer.", pipeline.text_encoder_2.state_dict()),
        **under("vae.", vae_tensors(pipeline.vae)),
        "text_encoders.t5xxl.logit_scale": torch.ones(()),
    }
    save_file(plain(everything), folder / "all_in_one.safetensors")
    return folder


@pytest.fixture(scope="module")
def sd3_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sd3")
    pipeline = build_sd3(folder / "whole")
    network = under("model.diffusion_model.", sd3_tensors(pipeline.transformer.state_dict()))
    vae = under("first_stage_model.", vae_tensors(pipeline.vae))
    clips = {
        **under(
            "text_encoders.clip_l.transformer.",
            without_projection(clip_tensors(pipeline.text_encoder)),
        ),
        **under("text_encoders.clip_g.transformer.", clip_tensors(pipeline.text_encoder_2)),
    }
    t5 = under("text_encoders.t5xxl.transformer.", pipeline.text_encoder_3.state_dict())
    save_file(plain({**network, **vae, **clips, **t5}), folder / "incl_all.safetensors")
    save_file(plain({**network, **vae, **clips}), folder / "incl_clips.safetensors")
    save_file(plain({**network, **vae}), folder / "alone.safetensors")
    loose(
        folder,
        pipeline,
        "text_encoder_3",
        text_encoders__clip_g=clip_tensors(pipeline.text_encoder_2),
    )
    pipeline.tokenizer_3.save_pretrained(folder / "parts" / "sd3" / "tokenizer_3")
    return folder


@pytest.fixture
def flux(flux_models: Path) -> Iterator[Path]:
    with models_from(flux_models, keep=True) as models:
        yield models


@pytest.fixture
def sd3(sd3_models: Path) -> Iterator[Path]:
    with models_from(sd3_models, keep=True) as models:
        yield models


@pytest.fixture(scope="module", autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    forget_loaded()


def drawn(name: str, prompt: str = "a photo of a red cat", **more: Any) -> Pixels:
    drawing = Drawing(card=find_checkpoint(name), prompt=prompt, seed=3, steps=3, **more)
    made = draw(drawing, 64, 64)[0]
    assert made is not None
    return made


def difference(one: Pixels, other: Pixels) -> int:
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("name", ["alone", "all_in_one"])
def test_a_file_of_flux_draws_what_its_folder_draws(flux: Path, name: str):
    folder = drawn("whole")
    assert find_checkpoint(name).base_model == "flux"
    assert difference(drawn(name), folder) <= 1
    assert difference(drawn(name, "a dog"), folder) > 1
    assert difference(drawn(name, "a dog"), drawn("whole", "a dog")) <= 1


@pytest.mark.parametrize(
    ("family", "start", "layer"),
    [
        ("flux", "", "final_layer.adaLN_modulation.1"),
        pytest.param(
            *("sd3", "model.diffusion_model.", "joint_blocks.2.context_block.adaLN_modulation.1"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_halves_that_stand_the_other_way_round_would_show(
    request: pytest.FixtureRequest, family: str, start: str, layer: str
):
    folder: Path = request.getfixturevalue(family)
    whole = folder / ("unet/alone.safetensors" if family == "flux" else "incl_all.safetensors")
    held = load_file(whole)
    for leaf in ("weight", "bias"):
        first, second = held[f"{start}{layer}.{leaf}"].chunk(2)
        held[f"{start}{layer}.{leaf}"] = torch.cat([second, first])
    save_file(held, whole.with_name("turned.safetensors"))
    assert difference(drawn("turned"), drawn(whole.stem)) > 1


@pytest.mark.parametrize("name", ["incl_all", "incl_clips", "alone"])
def test_a_file_of_stable_diffusion_3_draws_what_its_folder_draws(sd3: Path, name: str):
    folder = drawn("whole")
    assert find_checkpoint(name).base_model == "sd3"
    assert difference(drawn(name), folder) <= 1
    assert difference(drawn(name, "a dog"), folder) > 1


def copied(flux: Path, to: Path) -> Path:
    """The files without the folder of the whole model, of which nothing is to be taken."""
    shutil.copytree(flux, to, ignore=shutil.ignore_patterns("whole", "volume", "all_in*", ".*"))
    return to


def test_all_files_that_lack_are_named_before_anything_loads(flux: Path, tmp_path: Path):
    there = copied(flux, tmp_path / "models")
    shutil.rmtree(there / "vae")
    (there / "text_encoders" / "t5xxl_fp16.safetensors").rename(there / "t5.sft")
    tokenizer = there / "parts" / "flux" / "tokenizer_2"
    (tokenizer / "tokenizer.json").unlink()
    with models_from(there):
        before = loaded_stats().loads
        with pytest.raises(DependencyMissingError) as refused:
            drawn("alone")
        assert loaded_stats().loads == before
    for said in (
        "T5 text encoder (text_encoder_2)",
        f"T5 tokenizer (tokenizer_2: {tokenizer} has no tokenizer.json)",
        "VAE (vae)",
    ):
        assert said in refused.value.problem
    assert "CLIP-L" not in refused.value.problem
    for file in (
        f"t5xxl_fp16.safetensors into {there}/text_encoders",
        f"of T5 into {tokenizer}",
        f"ae.safetensors into {there}/vae",
        "alone.json",
    ):
        assert file in refused.value.remedy


@pytest.mark.slow
def test_parts_come_from_where_the_facts_say(flux: Path, tmp_path: Path):
    there = copied(flux, tmp_path / "models")
    other = build_flux(there / "other", seed=5)
    facts = there / "unet" / "alone.json"
    with models_from(there):
        own = drawn("alone")
        before = identity(find_checkpoint("alone"))
        facts.write_text(json.dumps({"parts": {"vae": "sharp"}}))
        save_file(plain(vae_tensors(other.vae)), there / "vae" / "sharp.safetensors")
        assert difference(drawn("alone"), own) > 1
        assert identity(find_checkpoint("alone")) != before
        facts.write_text(json.dumps({"parts": "other"}))
        card = find_checkpoint("alone")
        assert {part.role: part.path for part in card.parts} == {
            role: there / "other" / role
            for role in (
                "text_encoder",
                "tokenizer",
                "text_encoder_2",
                "tokenizer_2",
                "vae",
                "scheduler",
            )
        }
        assert difference(drawn("alone"), own) > 1
        for wrong in ("nowhere", {"unet": "x"}, {"vae": None}, ["x"]):
            facts.write_text(json.dumps({"parts": wrong}))
            with pytest.raises((DependencyMissingError, InvalidMediaError), match=r"nowhere|parts"):
                find_checkpoint("alone")


@pytest.mark.slow
def test_the_sampler_is_that_of_the_model_it_was_published_with(flux: Path, tmp_path: Path):
    there = copied(flux, tmp_path / "models")
    fast = build_flux(there / "fast", seed=5, guided=False)
    network = flux_tensors(fast.transformer.state_dict())
    save_file(plain(network), there / "unet" / "quick.safetensors")
    with models_from(there):
        config = model_of(find_checkpoint("quick")).own_scheduler.config
        assert (config["shift"], config["use_dynamic_shifting"]) == (1.0, False)
        assert not model_of(find_checkpoint("quick")).pipeline.transformer.config["guidance_embeds"]
        config = model_of(find_checkpoint("alone")).own_scheduler.config
        assert (config["use_dynamic_shifting"], config["max_shift"]) == (True, 1.15)


def test_stable_diffusion_3_draws_without_t5_where_that_is_said(sd3: Path):
    facts = sd3 / "incl_clips.json"
    with_t5 = drawn("incl_clips")
    facts.write_text(json.dumps({"parts": {"text_encoder_3": None}}))
    try:
        assert model_of(find_checkpoint("incl_clips")).pipeline.text_encoder_3 is None
        assert difference(drawn("incl_clips"), with_t5) > 1
    finally:
        facts.unlink()


def test_what_takes_no_part_of_a_file_is_named_and_where_parts_come_from(flux: Path):
    with watching(None) as notes:
        drawn("all_in_one")
    assert any("text_encoders.t5xxl.logit_scale (for comparing" in note for note in notes)
    with watching(None) as notes:
        drawn("alone")
    assert any(
        "text_encoder is clip/clip_l.safetensors" in note and "vae is vae/ae" in note
        for note in notes
    )
    assert len(list(model_of(find_checkpoint("alone")).account.used)) > 100


def test_the_registry_takes_no_part_for_a_model(flux: Path):
    known = registry()
    known.scan(hashes=False)
    kinds = {info.name: info.model_type for info in known.list_all()}
    assert kinds["t5xxl_fp16"] == kinds["clip_l"] == "text_encoder"
    assert kinds["alone"] == kinds["all_in_one"] == "checkpoint"
    assert "tokenizer_2" not in kinds


@pytest.mark.parametrize("family", ["flux", "sd3"])
def test_names_are_those_that_diffusers_converts(family: str):
    """Its own reader is for networks of the published width alone, so names are compared there."""
    from diffusers.loaders import single_file_utils

    from safelight.engines.diffusers.flow_names import targets

    with torch.device("meta"):
        if family == "flux":
            network = FluxTransformer2DModel(
                num_layers=2, num_single_layers=2, guidance_embeds=True
            )
            held = flux_tensors(network.state_dict())
        else:
            network = SD3Transformer2DModel(
                num_layers=3, dual_attention_layers=(0,), qk_norm="rms_norm"
            )
            held = sd3_tensors(network.state_dict())
    convert = getattr(single_file_utils, f"convert_{family}_transformer_checkpoint_to_diffusers")
    ours = [each for name in held for each in targets(name)]
    assert sorted(ours) == sorted(convert(dict(held)))


def test_networks_that_read_more_than_the_picture_are_refused(flux: Path, tmp_path: Path):
    there = copied(flux, tmp_path / "models")
    held = load_file(there / "unet" / "alone.safetensors")
    held["img_in.weight"] = torch.zeros(128, 384)
    save_file(held, there / "unet" / "filling.safetensors")
    with models_from(there, keep=True):
        with pytest.raises(InvalidMediaError, match="reads 384 channels and makes 64"):
            drawn("filling")


def test_a_file_that_lacks_tensors_or_has_others_is_refused(flux: Path, tmp_path: Path):
    there = copied(flux, tmp_path / "models")
    held = load_file(there / "unet" / "alone.safetensors")
    lacking = {name: each for name, each in held.items() if "single_blocks.1.linear2" not in name}
    save_file(lacking, there / "unet" / "lacking.safetensors")
    other = {**held, "txt_in.bias": torch.zeros(64)}
    save_file(other, there / "unet" / "other.safetensors")
    with models_from(there, keep=True):
        with pytest.raises(InvalidMediaError, match=r"lacks 2 tensors.*single_transformer_blocks"):
            drawn("lacking")
        with pytest.raises(InvalidMediaError, match=r"txt_in\.bias .* is \(64,\), expected"):
            drawn("other")


@pytest.mark.slow
def test_a_vae_of_ones_own_stands_in_and_words_are_refused(flux: Path, tmp_path: Path):
    there = copied(flux, tmp_path / "models")
    other = build_flux(tmp_path / "other", seed=5)
    save_file(plain(vae_tensors(other.vae)), there / "vae" / "sharp.safetensors")
    (there / "embeddings").mkdir()
    save_file({"clip_l": torch.randn(2, 64)}, there / "embeddings" / "zzwish.safetensors")
    with models_from(there, keep=True):
        own = drawn("alone")
        other_one = drawn("alone", vae=add_on("vae", "sharp", 1))
        assert difference(other_one, own) > 1
        assert difference(drawn("alone"), own) == 0
        (there / "unet" / "alone.json").write_text(json.dumps({"parts": {"vae": "sharp"}}))
        assert difference(drawn("alone"), other_one) <= 1
        with pytest.raises((InvalidMediaError, InvalidFieldValueError), match="embedding"):
            drawn("alone", "zzwish", embeddings=(add_on("embeddings", "zzwish", 1),))
        assert difference(drawn("alone"), other_one) <= 1


@pytest.mark.parametrize(
    "gone",
    [
        ("vae/config.json",),
        ("transformer/diffusion_pytorch_model.safetensors", "tokenizer_2/tokenizer.json"),
        ("scheduler/scheduler_config.json",),
    ],
)
def test_what_a_folder_lacks_is_named_before_anything_loads(
    flux: Path, tmp_path: Path, gone: tuple[str, ...]
):
    shutil.copytree(flux / "whole", tmp_path / "models" / "whole", copy_function=os.link)
    for file in gone:
        (tmp_path / "models" / "whole" / file).unlink()
    with models_from(tmp_path / "models", keep=True):
        before = loaded_stats().loads
        with pytest.raises(InvalidMediaError) as refused:
            find_checkpoint("whole")
        assert loaded_stats().loads == before
    for file in gone:
        named = "transformer/weights" if file.startswith("transformer") else file
        assert named in refused.value.problem


def test_a_folder_in_shards_draws_what_the_whole_one_draws(flux: Path, tmp_path: Path):
    there = tmp_path / "models"
    shutil.copytree(flux / "whole", there / "split", copy_function=os.link)
    shutil.copytree(flux / "whole", there / "whole", copy_function=os.link)
    for part in ("transformer", "text_encoder_2"):
        (file,) = (there / "split" / part).glob("*.safetensors")
        tensors = load_file(file)
        file.unlink()
        names = sorted(tensors)
        halves = names[::2], names[1::2]
        stem, listed = file.name.removesuffix(".safetensors"), dict[str, str]()
        for number, half in enumerate(halves, start=1):
            shard = f"{stem}-{number:05}-of-{len(halves):05}.safetensors"
            save_file(
                {name: tensors[name] for name in half}, file.with_name(shard), {"format": "pt"}
            )
            listed |= dict.fromkeys(half, shard)
        index = {"metadata": {}, "weight_map": listed}
        file.with_name(f"{file.name}.index.json").write_text(json.dumps(index))
    with models_from(there, keep=True):
        assert difference(drawn("split"), drawn("whole")) == 0
        lost = "transformer/diffusion_pytorch_model-00002-of-00002.safetensors"
        (there / "split" / lost).unlink()
        with pytest.raises(InvalidMediaError) as refused:
            find_checkpoint("split")
        assert lost in refused.value.problem
