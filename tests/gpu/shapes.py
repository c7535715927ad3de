"""Models of random weights in the shapes of real ones, as diffusers folders.

Nothing is learned by them, but they take the memory and the time of the real ones. With `tiny` they
have the same parts and a few thousand weights, so that every line runs on a CPU too.
"""

import json
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from safelight.weights.layouts import clip_vocabulary

WORDS = 49408
"""In CLIP's vocabulary."""
SPECIAL = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}


def build(name: str, folder: Path, tiny: bool, device: str) -> Path:
    """Save a random model.

    Args:
        name: one of `SHAPES`.
        folder: is made.
        tiny: a few thousand weights.
        device: where the weights are drawn; a GPU draws billions in a moment.
    """
    torch.manual_seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _BUILDERS[name](folder, tiny, device)
    (folder / "safelight.json").write_text(json.dumps({"licence": "Apache-2.0"}))
    return folder


def _on(device: str) -> AbstractContextManager[object]:
    return torch.device(device) if device != "cpu" else nullcontext()


def _clip_tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = clip_vocabulary()
    (folder / "vocab.json").write_text(vocabulary)
    (folder / "merges.txt").write_text(merges)
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "unk_token": SPECIAL["eos_token"],
        "pad_token": SPECIAL["eos_token"],
        **SPECIAL,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return CLIPTokenizer.from_pretrained(folder)


def _clip(width: int, layers: int, heads: int, projected: bool, tiny: bool) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    if tiny:
        width, layers, heads = 32, 2, 2
    config = CLIPTextConfig(
        vocab_size=WORDS,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_act="gelu" if projected else "quick_gelu",
        max_position_embeddings=77,
        bos_token_id=WORDS - 2,
        eos_token_id=WORDS - 1,
        pad_token_id=WORDS - 1,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def _vae(latents: int, scaling: float, tiny: bool, **more: object) -> Any:
    from diffusers import AutoencoderKL

    levels = (8, 8, 8, 8) if tiny else (128, 256, 512, 512)
    return AutoencoderKL(
        block_out_channels=levels,
        down_block_types=("DownEncoderBlock2D",) * len(levels),
        up_block_types=("UpDecoderBlock2D",) * len(levels),
        layers_per_block=1 if tiny else 2,
        latent_channels=latents,
        norm_num_groups=8 if tiny else 32,
        scaling_factor=scaling,
        **more,
    )


def _half(*modules: Any) -> None:
    for module in modules:
        module.to(torch.float16)


def _sd15(folder: Path, tiny: bool, device: str) -> None:
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    tokenizer = _clip_tokenizer(folder / "tokenizer")
    with _on(device):
        unet = UNet2DConditionModel(
            sample_size=8 if tiny else 64,
            block_out_channels=(8, 8, 16, 16) if tiny else (320, 640, 1280, 1280),
            layers_per_block=1 if tiny else 2,
            norm_num_groups=8 if tiny else 32,
            cross_attention_dim=32 if tiny else 768,
            attention_head_dim=2 if tiny else 8,
        )
        text = _clip(768, 12, 12, projected=False, tiny=tiny)
        vae = _vae(4, 0.18215, tiny)
    _half(unet, text, vae)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def _sdxl(folder: Path, tiny: bool, device: str) -> None:
    from diffusers import (
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )

    first = _clip_tokenizer(folder / "tokenizer")
    second = _clip_tokenizer(folder / "tokenizer_2")
    with _on(device):
        unet = UNet2DConditionModel(
            sample_size=16 if tiny else 128,
            block_out_channels=(8, 16, 16) if tiny else (320, 640, 1280),
            layers_per_block=1 if tiny else 2,
            norm_num_groups=8 if tiny else 32,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=[1, 1, 2] if tiny else [1, 2, 10],
            attention_head_dim=[1, 2, 2] if tiny else [5, 10, 20],
            cross_attention_dim=64 if tiny else 2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8 if tiny else 256,
            projection_class_embeddings_input_dim=6 * 8 + 32 if tiny else 2816,
        )
        one = _clip(768, 12, 12, projected=False, tiny=tiny)
        two = _clip(1280, 32, 20, projected=True, tiny=tiny)
        vae = _vae(4, 0.13025, tiny)
    _half(unet, one, two, vae)
    StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=one,
        text_encoder_2=two,
        tokenizer=first,
        tokenizer_2=second,
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="trailing",
        ),
    ).save_pretrained(folder)


def _flux(folder: Path, tiny: bool, device: str) -> None:
    """Flux-schnell of 2 double and 4 single blocks instead of 19 and 38, T5 of 2 layers."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        FluxPipeline,
        FluxTransformer2DModel,
    )
    from transformers import T5Config, T5EncoderModel

    first = _clip_tokenizer(folder / "tokenizer")
    second = _clip_tokenizer(folder / "tokenizer_2")  # T5's own vocabulary is not at hand
    heads, per_head = (2, 16) if tiny else (24, 128)
    with _on(device):
        transformer = FluxTransformer2DModel(
            in_channels=64,
            num_layers=1 if tiny else 2,
            num_single_layers=1 if tiny else 4,
            attention_head_dim=per_head,
            num_attention_heads=heads,
            joint_attention_dim=32 if tiny else 4096,
            pooled_projection_dim=32 if tiny else 768,
            axes_dims_rope=(4, 6, 6) if tiny else (16, 56, 56),
        )
        one = _clip(768, 12, 12, projected=False, tiny=tiny)
        two = T5EncoderModel(
            T5Config(
                vocab_size=WORDS,
                d_model=32 if tiny else 4096,
                d_kv=16 if tiny else 64,
                d_ff=64 if tiny else 10240,
                num_layers=1 if tiny else 2,
                num_heads=2 if tiny else 64,
                feed_forward_proj="gated-gelu",
            )
        )
        vae = _vae(16, 0.3611, tiny, shift_factor=0.1159, use_quant_conv=False)
    _half(transformer, one, two, vae)
    FluxPipeline(
        vae=vae,
        text_encoder=one,
        text_encoder_2=two,
        tokenizer=first,
        tokenizer_2=second,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
    ).save_pretrained(folder)


_BUILDERS: dict[str, Callable[[Path, bool, str], None]] = {
    "sd15": _sd15,
    "sdxl": _sdxl,
    "flux": _flux,
}
SHAPES = tuple(_BUILDERS)


def build_lora(model: Path, folder: Path) -> None:
    """A strong LoRA of random weights for the U-Net of a model, `style.safetensors`."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils.save_and_load import get_peft_model_state_dict

    unet = UNet2DConditionModel.from_pretrained(model / "unet", torch_dtype=torch.float16)
    torch.manual_seed(1)
    unet.add_adapter(
        LoraConfig(r=8, lora_alpha=8, init_lora_weights=False, target_modules=["to_k", "to_v"])
    )
    for name, weight in unet.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(weight.data, std=0.3)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    StableDiffusionPipeline.save_lora_weights(
        folder, unet_lora_layers=layers, weight_name="style.safetensors"
    )


def build_controlnet(model: Path, folder: Path) -> None:
    """A ControlNet of random weights for the U-Net of a model."""
    from diffusers import ControlNetModel, UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(model / "unet", torch_dtype=torch.float32)
    torch.manual_seed(3)
    net = ControlNetModel.from_unet(unet)
    for name, weight in net.named_parameters():
        if "controlnet_" in name and weight.abs().sum() == 0:  # those begin as zeros
            torch.nn.init.normal_(weight.data, std=0.1)
    net.save_pretrained(folder)
