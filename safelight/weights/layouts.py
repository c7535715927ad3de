"""Sizes of single-file models, read off their tensors: what a diffusers folder says in its configs.

Single files bring neither configs nor a tokenizer. The libraries would ask a hub for them; here
they are worked out, so that a file someone brings opens offline.
"""

import json
import lzma
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from safelight.errors import InvalidMediaError

Shapes = Mapping[str, tuple[int, ...]]
Config = dict[str, object]
MERGES = Path(__file__).with_name("clip_merges.txt.xz")
"""Byte-pair merges of CLIP (OpenAI, MIT), which all Stable Diffusions read prompts with."""
_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_CLIP = "cond_stage_model.transformer.text_model."
_OPEN_CLIP = "cond_stage_model.model."
_CLIP_XL, _OPEN_CLIP_XL = (
    "conditioner.embedders.0.transformer.text_model.",
    "conditioner.embedders.1.model.",
)
_HEAD_WIDTH, _HEADS_OF_SD1 = 64, 8
_START, END = "<|startoftext|>", "<|endoftext|>"
_NOISE: Config = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}
"""As in the configs that Stable Diffusion 1.5 and XL were published with."""
_OTHER_NOISE = ("edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
"""Tensors of models that were trained with another noise (Karras et al. 2022, arXiv:2206.00364)."""


Part = tuple[str, str, Config]
"""Library, class and config of a part of a pipeline."""


def write_layout(shapes: Shapes, name: str, folder: Path) -> str:
    """Write the configs and tokenizers of a model in the layout that diffusers opens.

    Args:
        shapes: of all tensors in the single file, by name.
        name: of the file, for the error.
        folder: an empty one.

    Returns:
        The pipeline's class name.

    Raises:
        InvalidMediaError: the layout of neither Stable Diffusion 1, 2 nor XL.
    """
    if f"{_CLIP}embeddings.token_embedding.weight" in shapes:
        pipeline, parts = "StableDiffusionPipeline", _sd1
    elif is_second(shapes):
        pipeline, parts = "StableDiffusionPipeline", _sd2
    elif (
        f"{_OPEN_CLIP_XL}token_embedding.weight" in shapes
        and f"{_UNET}label_emb.0.0.weight" in shapes
    ):
        pipeline, parts = "StableDiffusionXLPipeline", _xl
    else:
        raise InvalidMediaError(
            f"{name} has {len(shapes)} tensors, but not those of a single file of Stable "
            "Diffusion 1.x, 2.x or XL",
            "bring this model as a diffusers folder",
        )
    if other := [name for name in _OTHER_NOISE if name in shapes]:
        raise InvalidMediaError(
            f"{name} says by {', '.join(other)} that it was trained with the noise of EDM, which "
            "is not known of single files",
            "bring this model as a diffusers folder, whose scheduler tells its noise",
        )
    try:
        made = parts(shapes)
    except (KeyError, ValueError, IndexError) as error:
        raise InvalidMediaError(
            f"{name} lacks tensors of a {pipeline}: {error}", "get the whole model again"
        ) from error
    index: Config = {"_class_name": pipeline}
    for part, (library, kind, config) in made.items():
        index[part] = [library, kind]
        (folder / part).mkdir()
        if kind == "CLIPTokenizer":
            write_clip_tokenizer(folder / part, str(config["pad_token"]))
        else:
            file = "scheduler_config.json" if part == "scheduler" else "config.json"
            (folder / part / file).write_text(json.dumps({"_class_name": kind, **config}))
    if pipeline == "StableDiffusionPipeline":
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
        index["requires_safety_checker"] = False
    (folder / "model_index.json").write_text(json.dumps(index))
    return pipeline


def is_second(names: Iterable[str]) -> bool:
    """Whether the names of its tensors are those of a Stable Diffusion 2."""
    return f"{_OPEN_CLIP}token_embedding.weight" in names


def write_controlnet_layout(shapes: Shapes, name: str, folder: Path) -> None:
    """Write the config of a ControlNet that lies in a single file, as `write_layout` does.

    Raises:
        InvalidMediaError: it has not the tensors that its first authors gave it.
    """
    prefix = next((p for p in ("control_model.", "") if f"{p}time_embed.0.weight" in shapes), None)
    if prefix is None:
        raise InvalidMediaError(
            f"{name} has {len(shapes)} tensors, but not those of a single file of a ControlNet",
            "bring this ControlNet as a diffusers folder",
        )
    try:
        config, _ = _levels(shapes, prefix)
        hint = f"{prefix}input_hint_block"
        config["conditioning_channels"] = shapes[f"{hint}.0.weight"][1]
        config["conditioning_embedding_out_channels"] = [
            shapes[f"{hint}.{number}.weight"][0] for number in (0, 4, 8, 12)
        ]
    except (KeyError, ValueError, IndexError) as error:
        raise InvalidMediaError(
            f"{name} lacks tensors of a ControlNet: {error}", "get the whole ControlNet again"
        ) from error
    (folder / "config.json").write_text(json.dumps({"_class_name": "ControlNetModel", **config}))


def _levels(shapes: Shapes, prefix: str) -> tuple[Config, list[bool]]:
    """What the descending half says, and at which of its levels the prompt is read."""
    channels: list[int] = []
    depths: list[int] = []
    layers, number = [0], 1
    while f"{prefix}input_blocks.{number}.0.in_layers.0.weight" in shapes or (
        f"{prefix}input_blocks.{number}.0.op.weight" in shapes
    ):
        block = f"{prefix}input_blocks.{number}."
        if f"{block}0.op.weight" in shapes:
            layers.append(0)
        else:
            if layers[-1] == 0:
                channels.append(shapes[f"{block}0.out_layers.3.weight"][0])
                depths.append(count_after(shapes, f"{block}1.transformer_blocks."))
            layers[-1] += 1
        number += 1
    middle = f"{prefix}middle_block.1."
    linear = len(shapes[f"{middle}proj_in.weight"]) == 2  # a convolution in Stable Diffusion 1
    crossing = [depth > 0 for depth in depths]
    depths[-1] = depths[-1] or count_after(shapes, f"{middle}transformer_blocks.")
    config: Config = {
        "in_channels": shapes[f"{prefix}input_blocks.0.0.weight"][1],
        "block_out_channels": channels,
        "layers_per_block": layers[0],
        "down_block_types": [f"{'CrossAttn' * here}DownBlock2D" for here in crossing],
        "cross_attention_dim": shapes[f"{middle}transformer_blocks.0.attn2.to_k.weight"][1],
        "transformer_layers_per_block": [max(depth, 1) for depth in depths],
        "use_linear_projection": linear,
        "attention_head_dim": (  # diffusers' name for the number of heads
            [max(count // _HEAD_WIDTH, 1) for count in channels] if linear else _HEADS_OF_SD1
        ),
    }
    sizes = f"{prefix}label_emb.0.0.weight"  # the size of the picture is an input of XL
    if sizes in shapes:
        config["addition_embed_type"] = "text_time"
        config["addition_time_embed_dim"] = 256
        config["projection_class_embeddings_input_dim"] = shapes[sizes][1]
    return config, crossing


def _unet(shapes: Shapes, side: int) -> Config:
    config, crossing = _levels(shapes, _UNET)
    up = [f"{'CrossAttn' * here}UpBlock2D" for here in reversed(crossing)]
    levels_of_vae = count_after(shapes, f"{_VAE}encoder.down.")
    return {**config, "up_block_types": up, "sample_size": side // 2 ** (levels_of_vae - 1)}


def _sd1(shapes: Shapes) -> dict[str, Part]:
    return {
        **_sd1_parts(shapes),
        "text_encoder": ("transformers", "CLIPTextModel", clip_config(shapes, _CLIP)),
        "tokenizer": ("transformers", "CLIPTokenizer", {"pad_token": END}),
    }


def _sd1_parts(shapes: Shapes) -> dict[str, Part]:
    """All but the text encoder, which is what Stable Diffusion 2 has another of."""
    noise = {**_NOISE, "skip_prk_steps": True}
    return {
        "unet": ("diffusers", "UNet2DConditionModel", _unet(shapes, 512)),
        "vae": ("diffusers", "AutoencoderKL", vae_config(shapes, 512, 0.18215)),
        "scheduler": ("diffusers", "PNDMScheduler", noise),
    }


def _sd2(shapes: Shapes) -> dict[str, Part]:
    text = _open_clip(shapes, _OPEN_CLIP)
    # the layer before the last is read, so diffusers leaves the last one out
    layers = count_after(shapes, f"{_OPEN_CLIP}transformer.resblocks.") - 1
    return {
        **_sd1_parts(shapes),
        "text_encoder": ("transformers", "CLIPTextModel", {**text, "num_hidden_layers": layers}),
        "tokenizer": ("transformers", "CLIPTokenizer", {"pad_token": "!"}),
    }


def _xl(shapes: Shapes) -> dict[str, Part]:
    second = _open_clip(shapes, _OPEN_CLIP_XL)
    return {
        "unet": ("diffusers", "UNet2DConditionModel", _unet(shapes, 1024)),
        "vae": ("diffusers", "AutoencoderKL", vae_config(shapes, 1024, 0.13025)),
        "text_encoder": ("transformers", "CLIPTextModel", clip_config(shapes, _CLIP_XL)),
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", second),
        "tokenizer": ("transformers", "CLIPTokenizer", {"pad_token": END}),
        "tokenizer_2": ("transformers", "CLIPTokenizer", {"pad_token": "!"}),
        "scheduler": (
            "diffusers",
            "EulerDiscreteScheduler",
            {**_NOISE, "timestep_spacing": "leading"},
        ),
    }


def vae_config(shapes: Shapes, side: int, scaling_factor: float, prefix: str = _VAE) -> Config:
    """Of a VAE under the names of its first authors.

    Args:
        shapes: of all tensors of its file.
        side: of the pictures it was trained on.
        scaling_factor: what latents are multiplied by, which no tensor tells.
        prefix: how its names begin.

    Raises:
        KeyError: a tensor is missing.
    """
    levels = count_after(shapes, f"{prefix}encoder.down.")
    channels = [
        shapes[f"{prefix}encoder.down.{level}.block.0.conv1.weight"][0] for level in range(levels)
    ]
    return {
        "sample_size": side,
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": count_after(shapes, f"{prefix}encoder.down.0.block."),
        "latent_channels": shapes[f"{prefix}decoder.conv_in.weight"][1],
        "scaling_factor": scaling_factor,
    }


def clip_config(shapes: Shapes, prefix: str, act: str = "quick_gelu") -> Config:
    """Of a text encoder of CLIP under the names of transformers.

    Args:
        shapes: of all tensors of its file.
        prefix: how its names begin, up to and with `text_model.`.
        act: its activation, which no tensor tells.

    Raises:
        KeyError: a tensor is missing.
    """
    words, width = shapes[f"{prefix}embeddings.token_embedding.weight"]
    return {
        **_text(words, width),
        "max_position_embeddings": shapes[f"{prefix}embeddings.position_embedding.weight"][0],
        "num_hidden_layers": count_after(shapes, f"{prefix}encoder.layers."),
        "intermediate_size": shapes[f"{prefix}encoder.layers.0.mlp.fc1.weight"][0],
        "projection_dim": width,
        "hidden_act": act,
    }


def _open_clip(shapes: Shapes, prefix: str) -> Config:
    words, width = shapes[f"{prefix}token_embedding.weight"]
    return {
        **_text(words, width),
        "max_position_embeddings": shapes[f"{prefix}positional_embedding"][0],
        "num_hidden_layers": count_after(shapes, f"{prefix}transformer.resblocks."),
        "intermediate_size": shapes[f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"][0],
        "projection_dim": shapes[f"{prefix}text_projection"][1],
        "hidden_act": "gelu",
    }


def _text(words: int, width: int) -> Config:
    return {
        "vocab_size": words,
        "hidden_size": width,
        "num_attention_heads": max(width // _HEAD_WIDTH, 1),
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        "pad_token_id": 1,
    }


def count_after(shapes: Shapes, prefix: str) -> int:
    """How many numbers follow the prefix in the names."""
    return len({name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)})


def write_clip_tokenizer(folder: Path, pad_token: str = END) -> None:
    """Write the files of CLIP's tokenizer into a folder."""
    vocabulary, merges = clip_vocabulary()
    (folder / "vocab.json").write_text(vocabulary, encoding="utf-8")
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "bos_token": _START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": pad_token,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@lru_cache(maxsize=1)
def clip_vocabulary() -> tuple[str, str]:
    """CLIP's vocab.json, 49408 tokens, and merges.txt."""
    merges = lzma.decompress(MERGES.read_bytes()).decode()
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = 256 - len(printable)
    characters = [*map(chr, printable), *(chr(256 + position) for position in range(others))]
    tokens = [*characters, *(character + "</w>" for character in characters)]
    tokens += ["".join(line.split(" ")) for line in merges.splitlines()]
    tokens += [_START, END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return json.dumps(vocabulary, ensure_ascii=False), f"#version: 0.2\n{merges}"
