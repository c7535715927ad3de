"""VAEs of their own in place of a model's, in the forms that people have them in."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from safelight.engines.diffusers.engine import ENGINE
from safelight.engines.diffusion import Drawing, add_on, draw, fill, redraw
from safelight.engines.interface import DrawRequest
from safelight.engines.machine.loaded import forget_loaded
from safelight.errors import DependencyMissingError, InvalidMediaError, UnsafePickleError
from safelight.pixels import Pixels
from safelight.progress import watching
from safelight.settings import settings
from safelight.weights.checkpoints import find_checkpoint
from safelight.weights.registry import registry
from tests.engines.test_single_file import CHANNELS, LEVELS, build, vae_tensor

FORMS = ("folder", "plain", "first", "pickled.vae")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, the same with another VAE, and that VAE by itself in all forms."""
    folder = tmp_path_factory.mktemp("vaes")
    build(folder / "narrow", seed=1)
    torch.manual_seed(9)
    vae = AutoencoderKL(
        block_out_channels=CHANNELS,
        down_block_types=["DownEncoderBlock2D"] * LEVELS,
        up_block_types=["UpDecoderBlock2D"] * LEVELS,
        layers_per_block=2,
    )
    shutil.copytree(folder / "narrow", folder / "other")
    shutil.rmtree(folder / "other" / "vae")
    vae.save_pretrained(folder / "other" / "vae")
    place = folder / "vae"
    shutil.copytree(folder / "other" / "vae", place / "folder")
    state = {name: tensor.contiguous().clone() for name, tensor in vae.state_dict().items()}
    save_file(state, place / "plain.safetensors")
    first = dict(vae_tensor(name, tensor) for name, tensor in state.items())
    save_file({f"first_stage_model.{n}": t for n, t in first.items()}, place / "first.safetensors")
    trained = {**first, "loss.logvar": torch.zeros(1), "model_ema.decay": torch.zeros(1)}
    torch.save({"state_dict": trained}, place / "pickled.vae.pt")
    lacks = {name: tensor for name, tensor in state.items() if name != "decoder.conv_in.weight"}
    save_file(lacks, place / "lacks.safetensors")
    save_file({"some.weight": torch.ones(2)}, place / "none.safetensors")
    broken = {
        **state,
        "decoder.conv_in.bias": torch.full_like(state["decoder.conv_in.bias"], torch.inf),
    }
    save_file(broken, place / "infinite.safetensors")
    for name in ("narrow", "other"):
        scaled = shutil.copytree(folder / name, folder / f"{name}-scaled") / "vae" / "config.json"
        held = json.loads(scaled.read_text())
        scaled.write_text(json.dumps({**held, "scaling_factor": 0.09}))
    wide = AutoencoderKL(block_out_channels=(32,), latent_channels=8)
    wide.save_pretrained(place / "wide")
    wide.save_pretrained(place / "stranger")
    config = json.loads((place / "stranger" / "config.json").read_text())
    config["_class_name"] = "AutoencoderTiny"
    (place / "stranger" / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(autouse=True)
def _settings(models: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(models))
    settings.cache_clear()


def drawing(model: str = "narrow", vae: str | None = None) -> Drawing:
    used = add_on("vae", vae, 1.0) if vae else None
    return Drawing(card=find_checkpoint(model), prompt="a cat", seed=3, steps=2, vae=used)


def drawn(model: str = "narrow", vae: str | None = None) -> Pixels:
    return draw(drawing(model, vae), 64, 64)[0]


@pytest.mark.slow
def test_every_form_draws_what_a_model_with_that_vae_draws_and_the_own_comes_back():
    own, other = drawn(), drawn("other")
    assert np.abs(own.astype(int) - other).max() > 1
    for form in FORMS:
        np.testing.assert_array_equal(drawn(vae=form), other, err_msg=form)
    np.testing.assert_array_equal(drawn(), own)


@pytest.mark.slow
def test_a_single_file_takes_the_scale_of_each_model():
    expected = drawn("other-scaled")
    assert np.abs(expected.astype(int) - drawn(vae="plain")).max() > 1
    np.testing.assert_array_equal(drawn("narrow-scaled", "plain"), expected)


def test_it_encodes_as_well_as_it_decodes():
    picture = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    expected = redraw(drawing("other"), picture, 0.5)[0]
    np.testing.assert_array_equal(redraw(drawing(vae="first"), picture, 0.5)[0], expected)
    filled = fill(drawing("other"), picture, mask, 0.8)[0]
    np.testing.assert_array_equal(fill(drawing(vae="folder"), picture, mask, 0.8)[0], filled)


def test_what_of_a_file_takes_no_part_is_said():
    forget_loaded()
    with watching(None) as notes:
        drawn(vae="pickled.vae")
    said = [note for note in notes if note.startswith("VAE pickled.vae.pt: took no part")]
    assert len(said) == 1
    assert "of the training" in said[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lacks", r"lacks 1 tensors: decoder\.conv_in\.weight"),
        ("none", "lacks"),
        ("infinite", r"decoder\.conv_in\.bias holds values that are no finite numbers"),
        ("wide", "its latents have 8 channels, the model's 4"),
        ("stranger", "it is of class AutoencoderTiny, the model's of AutoencoderKL"),
    ],
)
def test_one_that_does_not_fit_is_named_and_the_own_stays(name: str, said: str):
    own = drawn()
    with pytest.raises(InvalidMediaError, match=rf"VAE {name}.*{said}"):
        drawn(vae=name)
    np.testing.assert_array_equal(drawn(), own)


class Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("ran",)


def test_a_pickle_that_runs_code_is_refused(models: Path):
    evil = models / "vae" / "evil.pt"
    torch.save({"state_dict": Runs()}, evil)
    try:
        with pytest.raises(UnsafePickleError):
            add_on("vae", "evil", 1.0)
    finally:
        evil.unlink()


def test_the_engine_counts_it_and_refuses_one_that_is_not_there():
    def request(vae: str | None) -> DrawRequest:
        return DrawRequest(prompt="a cat", seed=3, model="narrow", vae=vae, width=64, height=64)

    registry().scan()
    plain, used = ENGINE.identity(request(None)), ENGINE.identity(request("first"))
    known = registry().get_model("first", "vae")
    assert used.weights == (*plain.weights, known.sha256)
    refusal = ENGINE.can(request("frst"))
    assert isinstance(refusal, DependencyMissingError)
    assert "first" in refusal.problem
