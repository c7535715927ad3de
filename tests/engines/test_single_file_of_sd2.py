"""A single file of Stable Diffusion 2 draws what its folder draws, once it is said how."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from safelight.engines.choosing import choose
from safelight.engines.interface import DrawRequest
from safelight.engines.machine.loaded import forget_loaded
from safelight.errors import InvalidMediaError
from safelight.settings import settings
from tests.engines.test_single_file import (
    CHANNELS,
    LEVELS,
    Tensors,
    drawn,
    open_clip,
    tokenizer,
    unet_name,
    vae_tensor,
)


def build_second(folder: Path, seed: int) -> Tensors:
    """Save a Stable Diffusion 2, narrow but with all layers of its text encoder; its tensors."""
    from diffusers import (
        AutoencoderKL,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        block_out_channels=(64, 64, 128, 128),
        cross_attention_dim=64,
        attention_head_dim=[1, 1, 2, 2],
        use_linear_projection=True,
        sample_size=8,
    )
    vae = AutoencoderKL(
        block_out_channels=CHANNELS,
        down_block_types=["DownEncoderBlock2D"] * LEVELS,
        up_block_types=["UpDecoderBlock2D"] * LEVELS,
        layers_per_block=2,
    )

    def text(layers: int) -> CLIPTextModel:
        return CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408,
                hidden_size=64,
                intermediate_size=96,
                num_hidden_layers=layers,
                num_attention_heads=1,
                hidden_act="gelu",
                eos_token_id=49407,
            )
        )

    whole, read = text(24), text(23)
    read.load_state_dict(whole.state_dict(), strict=False)
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=read,
        tokenizer=tokenizer(folder.parent / "words_2", pad_token="!"),
        unet=unet,
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            steps_offset=1,
            prediction_type="v_prediction",
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    made = {f"model.diffusion_model.{unet_name(n)}": t for n, t in unet.state_dict().items()}
    for name, tensor in vae.state_dict().items():
        name, tensor = vae_tensor(name, tensor)
        made[f"first_stage_model.{name}"] = tensor
    state = {
        f"text_model.{n.removeprefix('text_model.')}": t for n, t in whole.state_dict().items()
    }
    made |= open_clip(state, "cond_stage_model.model.")
    made["cond_stage_model.model.text_projection"] = torch.randn(64, 64)
    made["cond_stage_model.model.logit_scale"] = torch.ones(())
    return {name: tensor.contiguous().clone() for name, tensor in made.items()}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("second")
    second = build_second(folder / "narrow", seed=4)
    for name in ("whole", "noisy", "untold"):
        save_file(second, folder / f"{name}.safetensors")
    (folder / "whole.json").write_text('{"prediction_type": "v_prediction"}')
    (folder / "noisy.json").write_text('{"prediction_type": "epsilon"}')
    return folder


@pytest.fixture(autouse=True)
def _settings(models: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(models))
    settings.cache_clear()
    forget_loaded()


def test_it_draws_what_its_folder_draws():
    folder = drawn("narrow")
    assert np.abs(drawn("whole").astype(int) - folder).max() <= 1
    assert np.abs(drawn("narrow", "a cat").astype(int) - folder).max() > 1


@pytest.mark.slow
def test_files_of_the_same_bytes_draw_as_is_said_of_each():
    whole = drawn("whole")
    assert np.abs(drawn("noisy").astype(int) - whole).max() > 1
    assert np.array_equal(drawn("whole"), whole)
    identities = [
        choose(DrawRequest(prompt="a cat", model=name, width=64, height=64)).identity
        for name in ("whole", "noisy")
    ]
    assert identities[0] != identities[1]


def test_one_that_nothing_is_said_of_is_refused_also_beside_a_loaded_one():
    drawn("whole")
    with pytest.raises(InvalidMediaError, match="predicts noise or velocity") as refused:
        drawn("untold")
    assert "untold.json" in refused.value.remedy
