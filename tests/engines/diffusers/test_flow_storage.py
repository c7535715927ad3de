"""Flux and Stable Diffusion 3 in eight bits and as GGUF: read as they are stored, or refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from safelight.engines.diffusers.model import model_of
from safelight.engines.diffusion import Drawing, draw
from safelight.errors import InvalidMediaError
from safelight.pixels import Pixels
from safelight.progress import watching
from safelight.weights.checkpoints import find_checkpoint
from tests.engines.diffusers.flow_models import (
    build_flux,
    build_sd3,
    flux_tensors,
    plain,
    sd3_tensors,
)
from tests.engines.diffusers.models_folder import models_from

FP8 = torch.float8_e4m3fn
Tensors = dict[str, torch.Tensor]
KINDS = gguf.GGMLQuantizationType


def write_gguf(path: Path, tensors: Tensors, kind: KINDS, architecture: str) -> None:
    """As the converters write it: matrices in blocks, vectors as they are."""
    writer = gguf.GGUFWriter(path, architecture)
    for name, tensor in tensors.items():
        held = tensor.detach().float().numpy()
        fits = held.ndim == 2 and held.shape[1] % gguf.GGML_QUANT_SIZES[kind][0] == 0
        if fits and kind is not KINDS.F16:
            packed = gguf.quants.quantize(held, kind)
            writer.add_tensor(name, packed, raw_dtype=kind)
        else:
            halved = held.ndim > 1 and kind is KINDS.F16
            writer.add_tensor(name, held.astype(np.float16) if halved else held)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def halved(network: torch.nn.Module, names: Any) -> None:
    """Round a network's own weights to half precision, so that F16 holds them exactly."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if names(name, weight):
                weight.copy_(weight.half().float())


def in_eight_bits(tensors: Tensors, scale: float | None) -> Tensors:
    made: Tensors = {}
    for name, tensor in tensors.items():
        if name.endswith(".weight") and tensor.ndim == 2:
            made[name] = (tensor / (scale or 1)).to(FP8)
            if scale is not None:
                made[name.replace(".weight", ".scale_weight")] = torch.tensor(scale)
        else:
            made[name] = tensor
    if scale is not None:
        made["scaled_fp8"] = torch.zeros(2).to(FP8)
    return made


def up_cast(tensors: Tensors, scale: float) -> Tensors:
    """What the file in eight bits stands for, in full precision."""
    return {
        name: (tensor / scale).to(FP8).float() * scale
        if name.endswith(".weight") and tensor.ndim == 2
        else tensor
        for name, tensor in tensors.items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("stored")
    flux, sd3 = build_flux(folder / "flux", guided=False), build_sd3(folder / "sd3")
    for each, pipeline in (("flux", flux), ("sd3", sd3)):
        halved(pipeline.transformer, lambda _, weight: weight.ndim > 1)
        if each == "sd3":
            places = pipeline.transformer.pos_embed.pos_embed
            places.copy_(places.half().float())
        pipeline.transformer.save_pretrained(folder / each / "transformer")
    (folder / "unet").mkdir()
    at = folder / "unet"
    networks = {
        "flux": flux_tensors(flux.transformer.state_dict()),
        "sd3": sd3_tensors(sd3.transformer.state_dict()),
    }
    for family, tensors in networks.items():
        for kind in (KINDS.F16, KINDS.Q8_0, KINDS.Q4_0):
            name = f"{family}-{kind.name}"
            write_gguf(at / f"{name}.gguf", plain(tensors), kind, family)
            (at / f"{name}.json").write_text(json.dumps({"parts": family}))
    held = networks["flux"]
    for name, tensors in {
        "eight": in_eight_bits(held, None),
        "eight_plain": up_cast(held, 1.0),
        "scaled": in_eight_bits(held, 0.01),
        "scaled_plain": up_cast(held, 0.01),
        "packed": {**held, "img_in.weight": torch.zeros(128, 32, dtype=torch.uint8)},
    }.items():
        save_file(plain(tensors), at / f"{name}.safetensors")
        (at / f"{name}.json").write_text(json.dumps({"parts": "flux"}))
    with models_from(folder) as models:
        yield models


def drawn(name: str, prompt: str = "a photo of a red cat") -> Pixels:
    drawing = Drawing(card=find_checkpoint(name), prompt=prompt, seed=3, steps=3)
    made = draw(drawing, 64, 64)[0]
    assert made is not None
    return made


def difference(one: Pixels, other: Pixels) -> int:
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("family", [pytest.param("flux", marks=pytest.mark.slow), "sd3"])
def test_gguf_in_half_precision_draws_what_the_folder_draws(folder: Path, family: str):
    assert find_checkpoint(f"{family}-F16").base_model == family
    assert difference(drawn(f"{family}-F16"), drawn(family)) <= 1


@pytest.mark.parametrize("family", ["flux", pytest.param("sd3", marks=pytest.mark.slow)])
def test_gguf_in_blocks_draws_nearly_that_and_stays_in_blocks(folder: Path, family: str):
    whole = drawn(family)
    near, further = drawn(f"{family}-Q8_0"), drawn(f"{family}-Q4_0")
    error = np.abs(near.astype(int) - whole)
    assert 0 < error.mean() < 1.5
    assert error.mean() < np.abs(further.astype(int) - whole).mean()
    network = model_of(find_checkpoint(f"{family}-Q8_0")).pipeline.transformer
    layer = network.transformer_blocks[0].ff.net[2]
    assert (type(layer).__name__, layer.weight.dtype) == ("GGUFLinear", torch.uint8)


@pytest.mark.parametrize("name", ["eight", "scaled"])
def test_eight_bits_are_made_into_the_numbers_they_stand_for(folder: Path, name: str):
    with watching(None) as said:
        made = drawn(name)
    assert difference(made, drawn(f"{name}_plain")) <= 1
    assert difference(made, drawn("flux")) > 1
    assert ("for computing in eight bits" in " ".join(said)) is (name == "scaled")


def test_packed_weights_are_refused_by_name(folder: Path):
    with pytest.raises(InvalidMediaError, match=r"stores img_in\.weight as uint8"):
        drawn("packed")
