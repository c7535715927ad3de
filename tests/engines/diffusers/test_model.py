"""What a model's files say of it counts, and networks do only what they were made for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from examples.untrained import build_untrained
from safelight.engines.diffusers.engine import ENGINE
from safelight.engines.diffusers.model import TEXT_TO_IMAGE, model_of
from safelight.engines.diffusion import Drawing, draw, fill, redraw
from safelight.engines.interface import RedrawRequest
from safelight.engines.machine.loaded import forget_loaded, loaded_stats
from safelight.errors import InvalidFieldValueError, InvalidMediaError
from safelight.settings import settings
from safelight.weights.checkpoints import find_checkpoint
from tests.engines.test_single_file import build_xl


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from diffusers import (
        StableDiffusionPipeline,
        StableDiffusionXLImg2ImgPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )

    folder = tmp_path_factory.mktemp("models")
    held = build_xl(folder / "wide", seed=2)
    empty = torch.zeros(0)
    save_file({**held, "v_pred": empty, "ztsnr": empty}, folder / "velocity.safetensors")
    save_file(held, folder / "said.safetensors", metadata={"modelspec.prediction_type": "v"})
    save_file({**held, "edm_mean": empty}, folder / "other.safetensors")
    save_file(held, folder / "facts.safetensors")
    (folder / "facts.json").write_text(
        json.dumps({"prediction_type": "v_prediction", "zero_terminal_snr": False})
    )
    torch.save({"state_dict": held}, folder / "older.ckpt")
    save_file(held, folder / "named.ckpt")
    base = StableDiffusionXLPipeline.from_pretrained(folder / "wide")

    def network(like: Any, **other: Any) -> Any:
        sizes = {k: v for k, v in like.config.items() if not k.startswith("_")}
        return UNet2DConditionModel(**{**sizes, **other})

    StableDiffusionXLImg2ImgPipeline(
        vae=base.vae,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=base.text_encoder_2,
        tokenizer_2=base.tokenizer_2,
        unet=network(
            base.unet, cross_attention_dim=128, projection_class_embeddings_input_dim=128 + 5 * 256
        ),
        scheduler=base.scheduler,
        requires_aesthetics_score=True,
    ).save_pretrained(folder / "refiner")
    build_untrained(folder / "tiny")
    tiny = StableDiffusionPipeline.from_pretrained(
        folder / "tiny", safety_checker=None, requires_safety_checker=False
    )
    for name, channels in (("fills", 9), ("edits", 8)):
        tiny.register_modules(unet=network(tiny.unet, in_channels=channels))
        tiny.save_pretrained(folder / name)
    return folder


@pytest.fixture(autouse=True)
def _here(models: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(models))
    settings.cache_clear()
    forget_loaded()


def of(name: str, **more: Any) -> Drawing:
    return Drawing(card=find_checkpoint(name), prompt="a photo", seed=7, steps=4, **more)


PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "predicts", "zero"),
    [
        pytest.param("velocity", "v_prediction", True, marks=pytest.mark.slow),
        ("said", "v_prediction", False),
        ("facts", "v_prediction", False),
        ("older", "epsilon", False),
    ],
)
def test_what_a_single_file_says_of_its_network_reaches_the_sampler(
    name: str, predicts: str, zero: bool
):
    card = find_checkpoint(name)
    assert card.base_model == "sdxl"
    own = model_of(card).view(TEXT_TO_IMAGE, None, None).scheduler.config
    assert own["prediction_type"] == predicts
    assert own["rescale_betas_zero_snr"] is zero
    assert own["timestep_spacing"] == ("trailing" if zero else "leading")
    assert draw(of(name), 64, 64)[0].shape == (64, 64, 3)


def test_a_file_trained_with_another_noise_is_refused_by_what_it_says():
    with pytest.raises(InvalidMediaError, match="edm_mean"):
        draw(of("other"), 64, 64)


@pytest.mark.filterwarnings("ignore")  # of diffusers, called without the engine around it
def test_a_refiner_refines_as_diffusers_does_and_draws_nothing_from_text(models: Path):
    from diffusers import StableDiffusionXLImg2ImgPipeline
    from PIL import Image

    direct = StableDiffusionXLImg2ImgPipeline.from_pretrained(models / "refiner")
    wanted = direct(
        prompt="a photo",
        negative_prompt="",
        image=Image.fromarray(PICTURE),
        strength=0.5,
        num_inference_steps=4,
        guidance_scale=7.5,
        generator=torch.Generator().manual_seed(7),
        output_type="np",
    ).images[0]
    refined = redraw(of("refiner"), PICTURE, 0.5)[0]
    assert np.abs(refined - wanted * 255).max() <= 1
    with pytest.raises(InvalidFieldValueError, match="is a refiner"):
        draw(of("refiner"), 64, 64)


def test_networks_that_read_more_than_the_picture_do_only_that():
    for name in ("fills", "edits"):
        with pytest.raises(InvalidFieldValueError, match="channels, expected 4"):
            draw(of(name), 64, 64)
        with pytest.raises(InvalidFieldValueError, match="channels, expected 4"):
            redraw(of(name), PICTURE, 0.5)
    mask = np.full((64, 64), 255, np.uint8)
    assert fill(of("fills"), PICTURE, mask, 1.0)[0].shape == (64, 64, 3)
    with pytest.raises(InvalidFieldValueError, match="edits by instruction"):
        fill(of("edits"), PICTURE, mask, 1.0)


def test_the_content_of_a_file_says_what_it_is_whatever_its_name():
    assert find_checkpoint("named").base_model == "sdxl"


def test_nothing_is_loaded_for_a_picture_that_no_step_changes():
    before = loaded_stats().loads
    request = RedrawRequest(model="tiny", prompt="a photo", seed=7, steps=4, strength=0.1)
    made = ENGINE.redraw(request, PICTURE)
    assert np.array_equal(made.pixels[0], PICTURE)
    assert (made.sampler, loaded_stats().loads) == ("", before)
