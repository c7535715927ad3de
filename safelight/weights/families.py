"""Which kind and family weights are of, by what trainers write and by the names of tensors."""

import re
from collections.abc import Mapping

from pydantic import JsonValue

from safelight.weights.kinds import ModelType

Said = Mapping[str, str]
Shapes = Mapping[str, tuple[int, ...]]
FEW_TENSORS = 4
"""An embedding has one for each text encoder."""
_OF_LORA = re.compile(
    r"\.(lora_down|lora_up|lora_A|lora_B|lora\.down|lora\.up|hada_w[12]_[ab]|lokr_w[12](_[ab])?"
    r"|lora_linear_layer\.(down|up)|dora_scale|oft_blocks|on_input|diff_b|diff)(\.|$)|_lora\.(down|up)\."
)
_ARCHITECTURES = (
    ("stable-diffusion-xl", "sdxl"),
    ("sdxl", "sdxl"),
    ("stable-diffusion-v3", "sd3"),
    ("stable-diffusion-3", "sd3"),
    ("sd3", "sd3"),
    ("flux", "flux"),
    ("hunyuan-video", "hunyuan_video"),
    ("wan", "wan"),
    ("ltx", "ltx"),
    ("stable-diffusion-v", "sd"),
    ("sd_v", "sd"),
    ("sd-v", "sd"),
)
"""Beginnings of `modelspec.architecture` and `ss_base_model_version`, the longer first."""
FAMILIES = {
    "StableDiffusionXL": "sdxl",
    "StableDiffusion3": "sd3",
    "StableDiffusion": "sd",
    "Flux": "flux",
}
"""Beginnings of the names of diffusers' classes that draw pictures, the longer first."""
_CLASSES = FAMILIES | {
    "StableVideoDiffusion": "svd",
    "AnimateDiff": "sd",
    "Wan": "wan",
    "LTX": "ltx",
    "CogVideoX": "cogvideox",
    "HunyuanVideo": "hunyuan_video",
}
"""The same with those that draw videos."""
_KINDS_BY_CLASS = (
    ("ControlNet", ModelType.CONTROLNET),
    ("Autoencoder", ModelType.VAE),
    ("VQModel", ModelType.VAE),
)
_CHECKPOINT_NAMES = (
    "model.diffusion_model.",
    "double_blocks.",
    "joint_blocks.",
    "transformer_blocks.",
    "down_blocks.",
    "diffusion_model.",
)
_TEXT_ENCODER_NAMES = ("text_model.", "encoder.block.", "enc.blk.", "text_encoders.")
"""CLIP, and T5 twice, the second as GGUF; files with several, or with one beside a network."""
_RESTORER_NAMES = ("stylegan_decoder.", "idx_pred_layer.", "fuse_convs_dict.", "mid.attn_1.norm2.")
"""Parts of names of GFPGAN, of CodeFormer twice, and of RestoreFormer, which is else like a VAE."""
_UPSCALER_NAMES = ("conv_first.", "params_ema", "model.0.weight", "RDB", "body.0.", "upconv1.")
_TEXT_WIDTHS = {768: "sd", 1024: "sd", 2048: "sdxl"}
"""Values of a text encoder that a U-Net's cross attention reads."""
_EMBEDDING_WIDTHS = {768: "sd", 1024: "sd", 1280: "sdxl"}


def kind_of(said: Said, shapes: Shapes) -> ModelType | None:
    """What weights are for; None where nothing tells.

    Args:
        said: the metadata.
        shapes: of the tensors by name, () where it is not known.
    """
    architecture = said.get("modelspec.architecture", "").lower()
    named = {
        "/lora": ModelType.LORA,
        "/textual-inversion": ModelType.EMBEDDING,
        "/controlnet": ModelType.CONTROLNET,
        "/vae": ModelType.VAE,
    }
    for end, kind in named.items():
        if architecture.endswith(end):
            return kind
    if said.get("ss_network_module") or any(_OF_LORA.search(name) for name in shapes):
        return ModelType.LORA
    return _kind_by_names(shapes)


def _kind_by_names(shapes: Shapes) -> ModelType | None:
    def some(*starts: str) -> bool:
        return any(name.startswith(starts) for name in shapes)

    if any(part in name for name in shapes for part in _RESTORER_NAMES):
        return ModelType.RESTORER
    if some("image_proj.", "ip_adapter."):
        return ModelType.IP_ADAPTER
    if some("control_model.", "controlnet_", "input_hint_block.", "control_net."):
        return ModelType.CONTROLNET
    if some("model.diffusion_model.") or (some("first_stage_model.") and some("cond_stage_model.")):
        return ModelType.CHECKPOINT
    if some("string_to_param", "emb_params", "clip_g", "clip_l") or _is_one_word(shapes):
        return ModelType.EMBEDDING
    if some("encoder.", "first_stage_model.encoder.") and some("decoder.", "first_stage_model."):
        return ModelType.VAE
    if some(*_TEXT_ENCODER_NAMES):
        return ModelType.TEXT_ENCODER
    if some(*_CHECKPOINT_NAMES):
        return ModelType.CHECKPOINT
    return ModelType.UPSCALER if some(*_UPSCALER_NAMES) else None


def _is_one_word(shapes: Shapes) -> bool:
    """A file with nothing but vectors of a text encoder, as diffusers keeps learned words."""
    widths = [shape[-1] for shape in shapes.values() if 1 <= len(shape) <= 2]
    return (
        0 < len(shapes) <= FEW_TENSORS
        and len(widths) == len(shapes)
        and all(width in _EMBEDDING_WIDTHS for width in widths)
    )


def base_model_of(said: Said, shapes: Shapes, kind: ModelType | None) -> str | None:
    """The family of weights; None where nothing tells."""
    for key in ("modelspec.architecture", "ss_base_model_version"):
        named = said.get(key, "").lower()
        family = next((ours for start, ours in _ARCHITECTURES if named.startswith(start)), None)
        if family is not None:
            return family
    for name in shapes:
        if "double_blocks" in name or "single_transformer_blocks" in name:
            return "flux"
        if "joint_blocks" in name:
            return "sd3"
        if kind is ModelType.TEXT_ENCODER:
            return None
        if name.startswith(("conditioner.embedders.1.", "lora_te2_", "text_encoder_2.", "clip_g")):
            return "sdxl"
    if any(name.startswith("cond_stage_model.") for name in shapes):
        return "sd"
    if kind is ModelType.EMBEDDING:
        widths = {_EMBEDDING_WIDTHS.get(shape[-1]) for shape in shapes.values() if shape}
        return next(iter(widths)) if len(widths) == 1 else None
    return _by_cross_attention(shapes)


def _by_cross_attention(shapes: Shapes) -> str | None:
    for name, shape in shapes.items():
        if "attn2" in name and "to_k" in name and len(shape) >= 2:
            if "up" in name.rpartition("to_k")[2] or "lora_B" in name:
                continue
            return _TEXT_WIDTHS.get(shape[1])
    return None


def network_of(said: Said, shapes: Shapes) -> dict[str, JsonValue]:
    """Rank and alpha of a LoRA; the largest rank where its layers differ."""
    found: dict[str, JsonValue] = {}
    ranks = [
        min(shape[:2])
        for name, shape in shapes.items()
        if len(shape) >= 2 and re.search(r"lora_down|lora_A|lora\.down|hada_w1_b", name)
    ]
    declared = _number(said.get("ss_network_dim"))
    rank = max(ranks, default=0) or declared
    if rank:
        found["rank"] = rank
    alpha = _number(said.get("ss_network_alpha"))
    if alpha is not None:
        found["alpha"] = alpha
    return found


def _number(text: str | None) -> int | float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    if not 0 <= value <= 2**20:
        return None
    return int(value) if value.is_integer() else value


def class_model(name: str) -> str | None:
    """The family of a class of diffusers."""
    return next((ours for start, ours in _CLASSES.items() if name.startswith(start)), None)


def class_kind(name: str) -> ModelType | None:
    """What a class of diffusers is for; None where its name does not tell."""
    for part, kind in _KINDS_BY_CLASS:
        if part in name:
            return kind
    return (
        ModelType.CHECKPOINT
        if name.endswith(("Transformer2DModel", "UNet2DConditionModel"))
        else None
    )
