"""Which layer of a loaded pipeline each tensor of a single file is for.

The file has the names of the first authors, the pipeline those of diffusers and transformers. The
libraries rename what they know and leave out the rest; here every name is accounted for.
"""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from safelight.engines.diffusers.accounts import Account, several
from safelight.engines.diffusers.lora_files import LayerNames
from safelight.errors import InvalidMediaError

if TYPE_CHECKING:
    import torch

_READ_BEFORE = frozenset({"v_pred", "ztsnr"})
"""Tensors without content that say how the model was trained; `checkpoints` reads them."""
NOISE = "alphas_cumprod"
"""The one tensor of a file whose numbers are compared; of the others names are enough."""
_OF_NOISE = re.compile(
    r"(betas|alphas_cumprod(_prev)?|(sqrt|log)_(one_minus_)?(recip_|recipm1_)?alphas_cumprod"
    r"|sqrt_recipm1_alphas_cumprod|posterior_\w+|logvar|lvlb_weights|denoiser\.\w+)"
)
_REASONS = (
    (re.compile(r"model_ema\..*"), "averages of the training, beside the model itself"),
    (_OF_NOISE, "numbers of the noise, which the sampler works out"),
    (re.compile(r".*\bposition_ids"), "the places of the words, counted from 0"),
    (re.compile(r".*\blogit_scale"), "for comparing pictures with texts"),
    (
        re.compile(r"(cond_stage_model\.model|text_encoders\..*)\.text_projection(\.weight)?"),
        "for comparing pictures with texts",
    ),
    (re.compile(r".*\bencoder\.embed_tokens\.weight"), "the same as shared.weight"),
    (
        re.compile(r"cond_stage_model\.model\.transformer\.resblocks\.23\..*"),
        "the last layer of the text encoder: Stable Diffusion 2 reads the one before",
    ),
    (re.compile(r"first_stage_model\.loss\..*|model\.loss\..*"), "of the training"),
)
_VAE = (
    (r"\bmid\.attn_1\.([qkv])\.", r"mid_block.attentions.0.to_\1."),
    (r"\bmid\.attn_1\.norm\.", "mid_block.attentions.0.group_norm."),
    (r"\bmid\.attn_1\.proj_out\.", "mid_block.attentions.0.to_out.0."),
    (r"\bmid\.block_1\.", "mid_block.resnets.0."),
    (r"\bmid\.block_2\.", "mid_block.resnets.1."),
    (r"\bdown\.(\d+)\.block\.", r"down_blocks.\1.resnets."),
    (r"\bdown\.(\d+)\.downsample\.", r"down_blocks.\1.downsamplers.0."),
    (r"\bnin_shortcut\.", "conv_shortcut."),
    (r"\b(en|de)coder\.norm_out\.", r"\1coder.conv_norm_out."),
)
_OPEN_CLIP = (
    (r"^transformer\.resblocks\.", "encoder.layers."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"^token_embedding\.", "embeddings.token_embedding."),
    (r"^positional_embedding$", "embeddings.position_embedding.weight"),
    (r"^ln_final\.", "final_layer_norm."),
    (r"^text_projection$", "text_projection.weight"),
)
_JOINED = re.compile(r"(.*)\.attn\.in_proj_(weight|bias)")
"""One tensor of OpenCLIP for three layers."""
_NOISE_TOLERANCE = 1e-3
"""Files hold them in half precision too."""


def account_of_file(tensors: "Mapping[str, torch.Tensor]", pipeline: Any, name: str) -> Account:  # noqa: ANN401
    """What became of the tensors of a single file.

    Args:
        tensors: all of them.
        pipeline: as it was loaded from the file.
        name: of the file, for the error.

    Raises:
        InvalidMediaError: a weight of the pipeline is in no tensor, so that its numbers would be
            made up; or the file was trained with other noise than the pipeline draws with.
    """
    places = _Places(pipeline)
    filled: set[tuple[str, str]] = set()
    used: set[str] = set()
    unused: dict[str, str] = {}
    for tensor in tensors:
        found = places.of(tensor)
        if tensor in _READ_BEFORE or (found and not filled & found):
            used.add(tensor)
            filled |= found
        else:
            unused[tensor] = reason_for(tensor)
    lacking = sorted(".".join(place) for place in places.all - filled)
    if lacking:
        raise InvalidMediaError(
            f"{name} lacks {len(lacking)} tensors of its model: {several(lacking)}",
            "get the whole model again",
        )
    _require_noise(tensors, pipeline, name)
    return Account(frozenset(used), unused)


def reason_for(tensor: str) -> str:
    """Why a tensor of a single file takes no part, that no part of the pipeline has a place for."""
    known = (why for pattern, why in _REASONS if pattern.fullmatch(tensor))
    return next(known, "the model has no such tensor")


class _Places:
    """All weights of a pipeline that files hold, and where each tensor of a file goes."""

    def __init__(self, pipeline: Any) -> None:  # noqa: ANN401
        parts = ("unet", "vae", "text_encoder", "text_encoder_2")
        modules = {part: getattr(pipeline, part, None) for part in parts}
        self.all = {
            (part, name)
            for part, module in modules.items()
            if module is not None
            for name in module.state_dict()
        }
        self._layers = LayerNames(pipeline)
        self._levels = len(pipeline.vae.config.block_out_channels)
        self._kinds: dict[str, tuple[str, Callable[[str], tuple[str, ...]]]] = {
            "model.diffusion_model.": ("unet", self._unet),
            "first_stage_model.": ("vae", self._vae),
            "cond_stage_model.transformer.": ("text_encoder", lambda path: (path,)),
            "cond_stage_model.model.": ("text_encoder", _open_clip),
            "conditioner.embedders.0.transformer.": ("text_encoder", lambda path: (path,)),
            "conditioner.embedders.1.model.": ("text_encoder_2", _open_clip),
        }

    def of(self, tensor: str) -> set[tuple[str, str]]:
        """The weights that a tensor fills; none where the pipeline has no place for it."""
        for start, (part, named) in self._kinds.items():
            if tensor.startswith(start):
                paths = named(tensor.removeprefix(start))
                return {place for path in paths if (place := self._known(part, path))}
        return set()

    def _known(self, part: str, path: str) -> tuple[str, str] | None:
        bare = path.removeprefix("text_model.")
        tries = ((part, path), (part, bare), (part, f"text_model.{bare}"))
        return next((place for place in tries if place in self.all), None)

    def _unet(self, path: str) -> tuple[str, ...]:
        layer, _, leaf = path.rpartition(".")
        found = self._layers.find("lora_unet_" + layer.replace(".", "_"))
        if found is None or (found[1].endswith("downsamplers.0.conv") and layer[-2:] != "op"):
            return ()
        return (f"{found[1]}.{leaf}",)

    def _vae(self, path: str) -> tuple[str, ...]:
        return (vae_layer(path, self._levels),)


def vae_layer(path: str, levels: int) -> str:
    """What diffusers calls a tensor of a VAE.

    Args:
        path: its name in the first authors' files; one of diffusers' own stays.
        levels: how often the VAE halves a picture, and once more.
    """

    def up(found: "re.Match[str]") -> str:
        inner = "resnets" if found[2] == "block" else "upsamplers.0"
        return f"up_blocks.{levels - 1 - int(found[1])}.{inner}."

    return re.sub(r"\bup\.(\d+)\.(block|upsample)\.", up, _renamed(path, _VAE))


def _open_clip(path: str) -> tuple[str, ...]:
    joined = _JOINED.fullmatch(path)
    if joined is None:
        return (_renamed(path, _OPEN_CLIP),)
    layer = _renamed(f"{joined[1]}.", _OPEN_CLIP)
    return tuple(f"{layer}self_attn.{one}_proj.{joined[2]}" for one in "qkv")


def _renamed(path: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, theirs in rules:
        path = re.sub(pattern, theirs, path)
    return path


def _require_noise(tensors: "Mapping[str, torch.Tensor]", pipeline: Any, name: str) -> None:  # noqa: ANN401
    held, ours = tensors.get(NOISE), getattr(pipeline.scheduler, NOISE, None)
    if held is None or ours is None:
        return
    same = held.shape == ours.shape
    if not same or float((held.float().cpu() - ours.float().cpu()).abs().max()) > _NOISE_TOLERANCE:
        raise InvalidMediaError(
            f"{name} was trained with other noise ({NOISE}) than Stable Diffusion was",
            "bring this model as a diffusers folder, whose scheduler tells its noise",
        )
