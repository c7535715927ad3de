"""What diffusers calls the layers of Stable Diffusion 3's and Flux's networks.

Where the first authors keep several layers in one tensor, one below the other, each row has its
place; and the last layers' shifts and scales stand the other way round there.
"""

import re

STARTS = ("model.diffusion_model.", "diffusion_model.", "")
"""How the names of a network's tensors may begin in a file."""
_QKV, _ADDED = ("attn.to_q", "attn.to_k", "attn.to_v"), ("add_q_proj", "add_k_proj", "add_v_proj")
_ADDED_QKV = tuple(f"attn.{each}" for each in _ADDED)
_FLUX_BLOCKS = {
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
    "img_attn.qkv": _QKV,
    "txt_attn.qkv": _ADDED_QKV,
    "img_attn.norm.query_norm": ("attn.norm_q",),
    "img_attn.norm.key_norm": ("attn.norm_k",),
    "txt_attn.norm.query_norm": ("attn.norm_added_q",),
    "txt_attn.norm.key_norm": ("attn.norm_added_k",),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
_FLUX_SINGLE = {
    "modulation.lin": ("norm.linear",),
    "linear1": (*_QKV, "proj_mlp"),
    "linear2": ("proj_out",),
    "norm.query_norm": ("attn.norm_q",),
    "norm.key_norm": ("attn.norm_k",),
}
_SD3_BLOCKS = {
    "x_block.attn.qkv": _QKV,
    "context_block.attn.qkv": _ADDED_QKV,
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "x_block.attn.ln_q": ("attn.norm_q",),
    "x_block.attn.ln_k": ("attn.norm_k",),
    "context_block.attn.ln_q": ("attn.norm_added_q",),
    "context_block.attn.ln_k": ("attn.norm_added_k",),
    "x_block.attn2.ln_q": ("attn2.norm_q",),
    "x_block.attn2.ln_k": ("attn2.norm_k",),
    "x_block.attn.proj": ("attn.to_out.0",),
    "context_block.attn.proj": ("attn.to_add_out",),
    "x_block.attn2.proj": ("attn2.to_out.0",),
    "x_block.adaLN_modulation.1": ("norm1.linear",),
    "context_block.adaLN_modulation.1": ("norm1_context.linear",),
    "x_block.mlp.fc1": ("ff.net.0.proj",),
    "x_block.mlp.fc2": ("ff.net.2",),
    "context_block.mlp.fc1": ("ff_context.net.0.proj",),
    "context_block.mlp.fc2": ("ff_context.net.2",),
}
_BLOCKS = {
    "double_blocks": ("transformer_blocks", _FLUX_BLOCKS),
    "single_blocks": ("single_transformer_blocks", _FLUX_SINGLE),
    "joint_blocks": ("transformer_blocks", _SD3_BLOCKS),
}
_OTHERS = {
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "txt_in": "context_embedder",
    "img_in": "x_embedder",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "x_embedder.proj": "pos_embed.proj",
    "context_embedder": "context_embedder",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
_BLOCK = re.compile(r"(double_blocks|single_blocks|joint_blocks)\.(\d+)\.(.+)")
_UNDERSCORED = re.compile(r"(double_blocks|single_blocks|joint_blocks)_(\d+)_(.+)")
_PLACES, _LAST = "pos_embed", "norm_out.linear"


def targets(name: str) -> tuple[str, ...]:
    """The tensors of diffusers' network that a tensor is for, in the order of its rows.

    Args:
        name: without what it begins with in its file.

    Returns:
        Empty where there is none.
    """
    if name == _PLACES:
        return ("pos_embed.pos_embed",)
    layer, _, leaf = name.rpartition(".")
    leaf = "weight" if leaf == "scale" else leaf
    block = _BLOCK.fullmatch(layer)
    if block is None:
        other = _OTHERS.get(layer)
        return () if other is None else (f"{other}.{leaf}",)
    theirs, inner = _BLOCKS[block[1]]
    return tuple(f"{theirs}.{block[2]}.{each}.{leaf}" for each in inner.get(block[3], ()))


def with_dots(name: str) -> str:
    """A layer's name as the first authors have it, of that in which dots became underscores.

    Args:
        name: without what it begins with in its file.

    Returns:
        The name itself where it is that of no known layer.
    """
    block = _UNDERSCORED.fullmatch(name)
    if block is None:
        return next((dotted for dotted in _OTHERS if dotted.replace(".", "_") == name), name)
    inner = (dotted for dotted in _BLOCKS[block[1]][1] if dotted.replace(".", "_") == block[3])
    return f"{block[1]}.{block[2]}.{next(inner, block[3])}"


def is_turned(target: str, rows: int, width: int) -> bool:
    """Whether shift and scale of a layer stand the other way round in a file.

    Args:
        target: its name in diffusers.
        rows: of its weight or bias.
        width: of the network; the last block's text has no more than these two.
    """
    layer = target.rpartition(".")[0]
    return layer == _LAST or (layer.endswith("norm1_context.linear") and rows == 2 * width)
