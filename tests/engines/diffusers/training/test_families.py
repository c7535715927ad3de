"""Every family that is trained learns on a tiny random model, and its file loads in diffusers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from examples.untrained import _tokenizer
from safelight.engines.diffusers.training import trainer
from safelight.engines.training import ExportFacts
from safelight.errors import PipelineError
from tests.engines.diffusers.training.small import request, trained

FACTS = ExportFacts("zorbo-v1", "zorbo", "", None)


def _text(tokenizer, projects: bool):
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        bos_token_id=len(tokenizer) - 2,
        eos_token_id=len(tokenizer) - 1,
        pad_token_id=len(tokenizer) - 1,
        hidden_size=16,
        intermediate_size=32,
        projection_dim=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        max_position_embeddings=77,
        hidden_act="gelu",
    )
    return (CLIPTextModelWithProjection if projects else CLIPTextModel)(config)


def _vae(channels: int):
    return AutoencoderKL(
        block_out_channels=[4, 8],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=channels,
        norm_num_groups=2,
        shift_factor=0.06 if channels > 4 else None,
        use_quant_conv=channels == 4,
        use_post_quant_conv=channels == 4,
    )


def build_xl(folder: Path) -> None:
    tokenizer = _tokenizer(folder / ".words")
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=64,
        norm_num_groups=2,
    )
    StableDiffusionXLPipeline(
        vae=_vae(4),
        text_encoder=_text(tokenizer, projects=False),
        text_encoder_2=_text(tokenizer, projects=True),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(beta_schedule="scaled_linear"),
        add_watermarker=False,
    ).save_pretrained(folder / "xl")


def _t5():
    return T5EncoderModel(
        T5Config(
            vocab_size=600,
            d_model=32,
            d_kv=8,
            d_ff=32,
            num_layers=1,
            num_heads=2,
        )
    )


def build_sd3(folder: Path) -> None:
    tokenizer = _tokenizer(folder / ".words")
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=8,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        out_channels=8,
        pos_embed_max_size=16,
    )
    StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(8),
        text_encoder=_text(tokenizer, projects=True),
        tokenizer=tokenizer,
        text_encoder_2=_text(tokenizer, projects=True),
        tokenizer_2=tokenizer,
        text_encoder_3=_t5(),
        tokenizer_3=tokenizer,
    ).save_pretrained(folder / "sd3")


def build_flux(folder: Path) -> None:
    tokenizer = _tokenizer(folder / ".words")
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=32,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(8),
        text_encoder=_text(tokenizer, projects=False),
        tokenizer=tokenizer,
        text_encoder_2=_t5(),
        tokenizer_2=tokenizer,
    ).save_pretrained(folder / "flux")


BUILD = {"xl": build_xl, "sd3": build_sd3, "flux": build_flux}


@pytest.mark.parametrize("family", [*BUILD])
def test_each_family_learns_and_its_file_loads_in_diffusers(
    volume: Path, tmp_path: Path, family: str
):
    folder = volume / "models"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    BUILD[family](folder)
    (folder / family / "safelight.json").write_text('{"recommended_steps": 2}')
    asked = request(
        model=family,
        max_train_steps=3,
        network_targets="all",
        learning_rate=0.05,
        text_encoder_lr=0.05 if family == "xl" else None,
    )
    trained(asked, tmp_path / "t")
    trainer.export_lora(tmp_path / "t" / "trained", FACTS, tmp_path / "lora.safetensors")
    (ours,) = trainer.draw_samples(asked, tmp_path / "t" / "trained", ["a red cat"])
    plain, theirs = (_drawn(folder / family, asked, tmp_path, lora) for lora in (False, True))
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert np.abs(ours.astype(int) - plain).max() > 1


def _drawn(folder: Path, asked, tmp_path: Path, lora: bool) -> np.ndarray:
    from diffusers import AutoPipelineForText2Image

    pipeline = AutoPipelineForText2Image.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    if lora:
        pipeline.load_lora_weights(tmp_path, weight_name="lora.safetensors")
    made = pipeline(
        "a red cat",
        width=32,
        height=32,
        num_inference_steps=2,
        guidance_scale=trainer.SAMPLE_GUIDANCE,
        generator=torch.Generator().manual_seed(asked.training.sample_seed),
        output_type="np",
    ).images[0]
    return np.rint(made * 255).astype(int)


@pytest.mark.usefixtures("models")
def test_a_model_of_another_kind_is_refused():
    from safelight.engines.diffusers.training.families import family_of

    with pytest.raises(PipelineError) as refused:
        family_of(object(), None, "odd")
    assert refused.value.code == "CONTRACT_MISMATCH"
