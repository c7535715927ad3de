"""Tiny random Stable Diffusion 3 and Flux: as folders, and as files that people have of them."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from tests.engines.test_single_file import CHANNELS, LEVELS, Tensors, tokenizer, vae_tensor

WORDS = ("a", "cat", "dog", "red", "heart", "photo", "of")
DYNAMIC: dict[str, Any] = {
    "shift": 3.0,
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}


def _clip(act: str, *, projects: bool) -> Any:
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=1,
        hidden_act=act,
        projection_dim=64,
        eos_token_id=49407,
    )
    return (CLIPTextModelWithProjection if projects else CLIPTextModel)(config)


def _t5() -> T5EncoderModel:
    config = T5Config(
        vocab_size=64,
        d_model=128,
        d_kv=64,
        d_ff=96,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config)


def _t5_words() -> T5TokenizerFast:
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    words += [(f"▁{word}", -3.0) for word in WORDS]
    return T5TokenizerFast(vocab=words, extra_ids=0)


def _vae(scaling: float, shift: float) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=CHANNELS,
        down_block_types=["DownEncoderBlock2D"] * LEVELS,
        up_block_types=["UpDecoderBlock2D"] * LEVELS,
        latent_channels=16,
        scaling_factor=scaling,
        shift_factor=shift,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def build_sd3(folder: Path, seed: int = 1) -> Any:
    """Save a Stable Diffusion 3.5 with both kinds of its blocks."""
    torch.manual_seed(seed)
    pipeline = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=128,
            patch_size=2,
            in_channels=16,
            num_layers=3,
            attention_head_dim=64,
            num_attention_heads=2,
            joint_attention_dim=128,
            caption_projection_dim=128,
            pooled_projection_dim=128,
            out_channels=16,
            pos_embed_max_size=32,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(1.5305, 0.0609),
        text_encoder=_clip("quick_gelu", projects=True),
        tokenizer=tokenizer(folder.parent / f".{folder.name}-1"),
        text_encoder_2=_clip("gelu", projects=True),
        tokenizer_2=tokenizer(folder.parent / f".{folder.name}-2", pad_token="!"),
        text_encoder_3=_t5(),
        tokenizer_3=_t5_words(),
    )
    with torch.no_grad():  # as the files that people have, which leave it out
        pipeline.text_encoder.text_projection.weight.copy_(torch.eye(64))
    _roughen(pipeline.transformer)
    pipeline.save_pretrained(folder)
    return pipeline


def build_flux(folder: Path, seed: int = 1, *, guided: bool = True) -> Any:
    """Save a Flux: of the kind dev, else schnell."""
    torch.manual_seed(seed)
    pipeline = FluxPipeline(
        transformer=FluxTransformer2DModel(
            in_channels=64,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=128,
            num_attention_heads=1,
            joint_attention_dim=128,
            pooled_projection_dim=64,
            guidance_embeds=guided,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(**(DYNAMIC if guided else {})),
        vae=_vae(0.3611, 0.1159),
        text_encoder=_clip("quick_gelu", projects=False),
        tokenizer=tokenizer(folder.parent / f".{folder.name}-1"),
        text_encoder_2=_t5(),
        tokenizer_2=_t5_words(),
    )
    _roughen(pipeline.transformer)
    pipeline.save_pretrained(folder)
    return pipeline


def _roughen(transformer: torch.nn.Module) -> None:
    """No two layers alike and none at zero, so that a change of places shows."""
    with torch.no_grad():
        for name, weight in transformer.named_parameters():
            weight.add_(torch.randn_like(weight) * (0.1 if "norm" in name else 0.03))


def flux_tensors(state: Tensors) -> Tensors:
    """The network under the names of its first authors."""
    made: Tensors = {}

    def put(theirs: str, *ours: str) -> None:
        for leaf in ("weight", "bias"):
            if f"{ours[0]}.{leaf}" in state:
                held = [state[f"{each}.{leaf}"] for each in ours]
                made[f"{theirs}.{leaf}"] = torch.cat(held) if len(held) > 1 else held[0]

    for end, kind in (("time", "timestep"), ("vector", "text"), ("guidance", "guidance")):
        for which, number in (("in", 1), ("out", 2)):
            put(f"{end}_in.{which}_layer", f"time_text_embed.{kind}_embedder.linear_{number}")
    put("img_in", "x_embedder")
    put("txt_in", "context_embedder")
    for at in range(2):
        a, b = f"double_blocks.{at}", f"transformer_blocks.{at}"
        put(f"{a}.img_mod.lin", f"{b}.norm1.linear")
        put(f"{a}.txt_mod.lin", f"{b}.norm1_context.linear")
        put(f"{a}.img_attn.qkv", *(f"{b}.attn.to_{each}" for each in "qkv"))
        put(f"{a}.txt_attn.qkv", *(f"{b}.attn.add_{each}_proj" for each in "qkv"))
        put(f"{a}.img_attn.proj", f"{b}.attn.to_out.0")
        put(f"{a}.txt_attn.proj", f"{b}.attn.to_add_out")
        for side, net in (("img", "ff"), ("txt", "ff_context")):
            put(f"{a}.{side}_mlp.0", f"{b}.{net}.net.0.proj")
            put(f"{a}.{side}_mlp.2", f"{b}.{net}.net.2")
            added = "added_" if side == "txt" else ""
            for which, letter in (("query", "q"), ("key", "k")):
                scale = state[f"{b}.attn.norm_{added}{letter}.weight"]
                made[f"{a}.{side}_attn.norm.{which}_norm.scale"] = scale
        a, b = f"single_blocks.{at}", f"single_transformer_blocks.{at}"
        put(f"{a}.modulation.lin", f"{b}.norm.linear")
        put(f"{a}.linear1", *(f"{b}.attn.to_{each}" for each in "qkv"), f"{b}.proj_mlp")
        put(f"{a}.linear2", f"{b}.proj_out")
        made[f"{a}.norm.query_norm.scale"] = state[f"{b}.attn.norm_q.weight"]
        made[f"{a}.norm.key_norm.scale"] = state[f"{b}.attn.norm_k.weight"]
    put("final_layer.linear", "proj_out")
    put("final_layer.adaLN_modulation.1", "norm_out.linear")
    return _turned(made, "final_layer.adaLN_modulation.1")


def sd3_tensors(state: Tensors) -> Tensors:
    """The network under the names of its first authors."""
    made: Tensors = {"pos_embed": state["pos_embed.pos_embed"]}

    def put(theirs: str, *ours: str) -> None:
        for leaf in ("weight", "bias"):
            if f"{ours[0]}.{leaf}" in state:
                held = [state[f"{each}.{leaf}"] for each in ours]
                made[f"{theirs}.{leaf}"] = torch.cat(held) if len(held) > 1 else held[0]

    put("x_embedder.proj", "pos_embed.proj")
    put("context_embedder", "context_embedder")
    for end, kind in (("t", "timestep"), ("y", "text")):
        for number in (0, 2):
            place = f"time_text_embed.{kind}_embedder.linear_{number // 2 + 1}"
            put(f"{end}_embedder.mlp.{number}", place)
    for at in range(3):
        a, b = f"joint_blocks.{at}", f"transformer_blocks.{at}"
        x, text = f"{a}.x_block", f"{a}.context_block"
        put(f"{x}.adaLN_modulation.1", f"{b}.norm1.linear")
        put(f"{text}.adaLN_modulation.1", f"{b}.norm1_context.linear")
        put(f"{x}.attn.qkv", *(f"{b}.attn.to_{each}" for each in "qkv"))
        put(f"{text}.attn.qkv", *(f"{b}.attn.add_{each}_proj" for each in "qkv"))
        put(f"{x}.attn.proj", f"{b}.attn.to_out.0")
        put(f"{text}.attn.proj", f"{b}.attn.to_add_out")
        put(f"{x}.attn2.qkv", *(f"{b}.attn2.to_{each}" for each in "qkv"))
        put(f"{x}.attn2.proj", f"{b}.attn2.to_out.0")
        for letter in "qk":
            put(f"{x}.attn.ln_{letter}", f"{b}.attn.norm_{letter}")
            put(f"{x}.attn2.ln_{letter}", f"{b}.attn2.norm_{letter}")
            put(f"{text}.attn.ln_{letter}", f"{b}.attn.norm_added_{letter}")
        for block, net in ((x, "ff"), (text, "ff_context")):
            put(f"{block}.mlp.fc1", f"{b}.{net}.net.0.proj")
            put(f"{block}.mlp.fc2", f"{b}.{net}.net.2")
    put("final_layer.linear", "proj_out")
    put("final_layer.adaLN_modulation.1", "norm_out.linear")
    return _turned(
        made, "final_layer.adaLN_modulation.1", "joint_blocks.2.context_block.adaLN_modulation.1"
    )


def _turned(made: Tensors, *layers: str) -> Tensors:
    for layer in layers:
        for leaf in ("weight", "bias"):
            scale, shift = made[f"{layer}.{leaf}"].chunk(2)
            made[f"{layer}.{leaf}"] = torch.cat([shift, scale])
    return made


def vae_tensors(vae: torch.nn.Module) -> Tensors:
    """The VAE under the names of its first authors."""
    return dict(vae_tensor(name, tensor) for name, tensor in vae.state_dict().items())


def clip_tensors(encoder: torch.nn.Module) -> Tensors:
    """A text encoder of CLIP as in its loose files, CLIP-L's without its projection."""
    state = encoder.state_dict()
    return {
        name if name.startswith("text_") else f"text_model.{name}": tensor
        for name, tensor in state.items()
    }


def plain(tensors: Tensors) -> Tensors:
    """Fit to be saved."""
    return {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
