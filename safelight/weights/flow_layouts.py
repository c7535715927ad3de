"""Configs of the parts of Stable Diffusion 3 and Flux, read off their tensors as in `layouts`.

What no tensor tells stands as it was published: how wide heads are, where the sampler puts its
steps, what latents are multiplied by.
"""

from collections.abc import Callable
from math import isqrt

from safelight.errors import InvalidMediaError
from safelight.weights.layouts import Config, Shapes, clip_config, count_after, vae_config

AXES = {128: (16, 56, 56)}
"""How Flux divides the width of a head between the place in the text, the row and the column."""
_HEAD_OF_SD3, _LATENTS_OF_SD3 = 64, 128
_SCALING = {"flux": (0.3611, 0.1159), "sd3": (1.5305, 0.0609)}
"""Of latents: what they are multiplied by, and what is taken off them before."""
_FOLLOWS_SIZE: Config = {
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}
"""Of Flux-dev: larger pictures take more of their steps where there is much noise."""
_QK_NORM = "x_block.attn.ln_q.weight"


def transformer_config(shapes: Shapes, prefix: str, family: str, name: str) -> Config:
    """Of the network that draws pictures from noise alone.

    Args:
        shapes: of all tensors of its file.
        prefix: how its names begin.
        family: flux or sd3.
        name: of the file, for the error.

    Raises:
        InvalidMediaError: it lacks tensors, or is of a size that no published model has.
    """
    config = _told(shapes, prefix, name, _flux if family == "flux" else _sd3, "transformer")
    reads, makes = config["in_channels"], config["out_channels"]
    if reads != makes:
        raise InvalidMediaError(
            f"the network in {name} reads {reads} channels and makes {makes}: it was made to fill "
            "or to follow control pictures",
            "choose another model",
        )
    return config


def scheduler_config(shapes: Shapes, prefix: str, family: str) -> Config:
    """Of the sampler, as it was published with the model: with Flux-dev, which has an embedding of
    the guidance, or with Flux-schnell, which has none; else with Stable Diffusion 3."""
    told: Config = {"num_train_timesteps": 1000}
    if family == "flux":
        leads = f"{prefix}guidance_in.in_layer.weight" in shapes
        return told | ({"shift": 3.0, **_FOLLOWS_SIZE} if leads else {"shift": 1.0})
    return told | {"shift": 3.0}


def flow_vae_config(shapes: Shapes, prefix: str, family: str, name: str) -> Config:
    """Of the VAE; raises as `transformer_config`."""
    scaling, shift = _SCALING[family]

    def vae(shapes: Shapes, prefix: str) -> Config:
        return {
            **vae_config(shapes, 1024, scaling, prefix),
            "shift_factor": shift,
            "use_quant_conv": f"{prefix}quant_conv.weight" in shapes,
            "use_post_quant_conv": f"{prefix}post_quant_conv.weight" in shapes,
        }

    return _told(shapes, prefix, name, vae, "VAE")


def clip_of_flow(shapes: Shapes, prefix: str, act: str, name: str) -> Config:
    """Of a text encoder of CLIP, whose projection is as wide as it is; raises as above."""

    def clip(shapes: Shapes, prefix: str) -> Config:
        config = clip_config(shapes, f"{prefix}text_model.", act)
        projection = f"{prefix}text_projection.weight"
        if projection in shapes:
            config["projection_dim"] = shapes[projection][0]
        return config

    return _told(shapes, prefix, name, clip, "text encoder of CLIP")


def t5_config(shapes: Shapes, prefix: str, name: str) -> Config:
    """Of the encoder of T5; raises as above."""

    def t5(shapes: Shapes, prefix: str) -> Config:
        block = f"{prefix}encoder.block.0.layer."
        words, width = shapes[f"{prefix}shared.weight"]
        gated = f"{block}1.DenseReluDense.wi_0.weight" in shapes
        buckets, heads = shapes[f"{block}0.SelfAttention.relative_attention_bias.weight"]
        return {
            "vocab_size": words,
            "d_model": width,
            "d_kv": shapes[f"{block}0.SelfAttention.q.weight"][0] // heads,
            "d_ff": shapes[f"{block}1.DenseReluDense.wi{'_0' * gated}.weight"][0],
            "num_layers": count_after(shapes, f"{prefix}encoder.block."),
            "num_heads": heads,
            "relative_attention_num_buckets": buckets,
            "feed_forward_proj": "gated-gelu" if gated else "relu",
        }

    return _told(shapes, prefix, name, t5, "text encoder of T5")


def _told(
    shapes: Shapes, prefix: str, name: str, tell: Callable[[Shapes, str], Config], what: str
) -> Config:
    try:
        return tell(shapes, prefix)
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise InvalidMediaError(
            f"{name} lacks tensors of a {what}: {error}", "get the whole model again"
        ) from error


def _flux(shapes: Shapes, prefix: str) -> Config:
    width, channels = shapes[f"{prefix}img_in.weight"]
    head = shapes[f"{prefix}double_blocks.0.img_attn.norm.query_norm.scale"][0]
    if head not in AXES:
        raise InvalidMediaError(
            f"its heads are {head} wide, and only those of {', '.join(map(str, AXES))} are known "
            "by their places",
            "bring this model as a diffusers folder",
        )
    return {
        "patch_size": 1,
        "in_channels": channels,
        "out_channels": shapes[f"{prefix}final_layer.linear.weight"][0],
        "num_layers": count_after(shapes, f"{prefix}double_blocks."),
        "num_single_layers": count_after(shapes, f"{prefix}single_blocks."),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": shapes[f"{prefix}txt_in.weight"][1],
        "pooled_projection_dim": shapes[f"{prefix}vector_in.in_layer.weight"][1],
        "guidance_embeds": f"{prefix}guidance_in.in_layer.weight" in shapes,
        "axes_dims_rope": list(AXES[head]),
    }


def _sd3(shapes: Shapes, prefix: str) -> Config:
    width, channels, _, patch = shapes[f"{prefix}x_embedder.proj.weight"]
    layers = count_after(shapes, f"{prefix}joint_blocks.")
    blocks = [f"{prefix}joint_blocks.{number}." for number in range(layers)]
    caption, joint = shapes[f"{prefix}context_embedder.weight"]
    return {
        "sample_size": _LATENTS_OF_SD3,
        "patch_size": patch,
        "in_channels": channels,
        "out_channels": shapes[f"{prefix}final_layer.linear.weight"][0] // patch**2,
        "num_layers": layers,
        "attention_head_dim": _HEAD_OF_SD3,
        "num_attention_heads": width // _HEAD_OF_SD3,
        "joint_attention_dim": joint,
        "caption_projection_dim": caption,
        "pooled_projection_dim": shapes[f"{prefix}y_embedder.mlp.0.weight"][1],
        "pos_embed_max_size": isqrt(shapes[f"{prefix}pos_embed"][1]),
        "qk_norm": "rms_norm" if f"{blocks[0]}{_QK_NORM}" in shapes else None,
        "dual_attention_layers": [
            at for at, block in enumerate(blocks) if f"{block}x_block.attn2.qkv.weight" in shapes
        ],
    }
