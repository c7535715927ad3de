"""Single files of Stable Diffusion 3 and Flux draw what their folders draw; what lacks is named."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from safelight.engines.diffusion import Drawing, draw
from safelight.pixels import Pixels
from safelight.weights.checkpoints import find_checkpoint
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
def flux(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
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
    with models_from(folder) as models:
        yield models


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
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
    with models_from(folder) as models:
        yield models


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


@pytest.mark.parametrize("name", ["incl_all", "incl_clips", "alone"])
def test_a_file_of_stable_diffusion_3_draws_what_its_folder_draws(sd3: Path, name: str):
    folder = drawn("whole")
    assert find_checkpoint(name).base_model == "sd3"
    assert difference(drawn(name), folder) <= 1
    assert difference(drawn(name, "a dog"), folder) > 1
