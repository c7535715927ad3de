"""Weights in eight bits: nearly the same picture from less memory, or a refusal that says why."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from examples.untrained import build_untrained
from safelight.engines.diffusers.draw import identity
from safelight.engines.diffusers.model import model_of
from safelight.engines.diffusion import Drawing, add_on, draw
from safelight.engines.machine.loaded import forget_loaded
from safelight.errors import DependencyMissingError, InvalidFieldValueError
from safelight.pixels import Pixels
from safelight.settings import reload_settings
from safelight.weights.checkpoints import find_checkpoint
from tests.engines.diffusers.flow_models import build_flux
from tests.engines.diffusers.models_folder import models_from

INSTALLED = importlib.util.find_spec("torchao") is not None
needs_torchao = pytest.mark.skipif(
    not INSTALLED, reason="needs torchao: requirements/quantise.lock"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantised")
    build_untrained(folder / "narrow")
    if INSTALLED:
        flux = build_flux(folder / "flux")
        (folder / "loras").mkdir()
        rank, layer = 4, flux.transformer.transformer_blocks[0].ff.net[2]
        path = "transformer.transformer_blocks.0.ff.net.2"
        out, into = layer.weight.shape
        torch.manual_seed(2)
        held = {
            f"{path}.lora_A.weight": torch.randn(rank, into),
            f"{path}.lora_B.weight": torch.randn(out, rank),
        }
        save_file(held, folder / "loras" / "film.safetensors")
    return folder


@pytest.fixture(autouse=True)
def _models(folder: Path) -> Iterator[None]:
    with models_from(folder):
        yield


def drawn(name: str, bits: str, monkeypatch: pytest.MonkeyPatch, *loras: str) -> Pixels:
    monkeypatch.setenv("SAFELIGHT_QUANTISE", bits)
    reload_settings()
    uses = tuple(add_on("loras", lora, 1.0) for lora in loras)
    made = draw(Drawing(find_checkpoint(name), "a red cat", 3, steps=3, loras=uses), 64, 64)[0]
    assert made is not None
    return made


@pytest.mark.skipif(INSTALLED, reason="torchao is installed")
def test_without_the_package_the_refusal_comes_before_anything_loads(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("SAFELIGHT_QUANTISE", "int8")
    reload_settings()
    with pytest.raises(DependencyMissingError, match="torchao") as refused:
        identity(find_checkpoint("narrow"))
    assert "requirements/quantise.lock" in refused.value.remedy


def test_a_value_that_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAFELIGHT_QUANTISE", "int2")
    with pytest.raises(Exception, match=r"quantise|QUANTISE"):
        reload_settings()
    monkeypatch.delenv("SAFELIGHT_QUANTISE")
    reload_settings()


def test_a_lora_for_a_unet_is_refused_since_it_is_written_into_the_weights(
    monkeypatch: pytest.MonkeyPatch,
):
    from safelight.engines.diffusers.quantising import require_whole_weights

    monkeypatch.setenv("SAFELIGHT_QUANTISE", "int8")
    reload_settings()
    with pytest.raises(InvalidFieldValueError, match="eight bits") as refused:
        require_whole_weights("narrow", "LoRA")
    assert "SAFELIGHT_QUANTISE to none" in refused.value.remedy


@needs_torchao
@pytest.mark.parametrize("name", ["narrow", "flux"])
def test_eight_bits_draw_nearly_the_same(name: str, monkeypatch: pytest.MonkeyPatch):
    whole = drawn(name, "none", monkeypatch)
    before = identity(find_checkpoint(name))
    near = drawn(name, "int8", monkeypatch)
    error = np.abs(near.astype(int) - whole)
    assert 0 < error.mean() < 1.5
    assert identity(find_checkpoint(name)) != before
    pipeline = model_of(find_checkpoint(name)).pipeline
    drawing = pipeline.unet if name == "narrow" else pipeline.transformer
    kinds = {type(each.weight).__name__ for each in drawing.modules() if hasattr(each, "weight")}
    assert "Int8Tensor" in kinds
    assert np.array_equal(drawn(name, "int8", monkeypatch), near)


@needs_torchao
def test_a_lora_on_a_transformer_in_eight_bits_draws_nearly_what_it_draws_on_a_whole_one(
    monkeypatch: pytest.MonkeyPatch,
):
    plain = drawn("flux", "int8", monkeypatch)
    whole = drawn("flux", "none", monkeypatch, "film")
    near = drawn("flux", "int8", monkeypatch, "film")
    assert np.abs(near.astype(int) - whole).mean() < np.abs(plain.astype(int) - whole).mean() / 2
    assert np.array_equal(drawn("flux", "int8", monkeypatch), plain)  # and off again


@pytest.fixture(scope="module", autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    forget_loaded()
