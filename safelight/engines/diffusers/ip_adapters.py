"""IP-Adapters: whether a model has a place for each of their tensors, and what they see with."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safelight.engines.diffusers.accounts import Account, several
from safelight.engines.diffusers.folders import account_of_part
from safelight.errors import DependencyMissingError

if TYPE_CHECKING:
    from transformers import CLIPImageProcessor

ENCODER = "image_encoder"
_PREPARED = "preprocessor_config.json"
_LAYER = re.compile(r"ip_adapter\.\d+\.to_[kv]_ip\.weight")
_PROJECTIONS = {
    "proj.weight": re.compile(r"(proj|norm)\.(weight|bias)"),
    "proj.3.weight": re.compile(r"proj\.[023]\.(weight|bias)"),
    "latents": re.compile(
        r"latents|(proj_in|proj_out|norm_out)\.(weight|bias)"
        r"|layers\.\d+\.(0\.(norm[12]\.(weight|bias)|to_(q|kv|out)\.weight)"
        r"|1\.(0\.(weight|bias)|[13]\.weight))"
    ),
}
"""By a tensor that only one kind of `image_proj` has: all that this kind consists of."""


@dataclass(frozen=True)
class Seen:
    """What an adapter looks at pictures with."""

    encoder: Any
    processor: "CLIPImageProcessor"
    account: Account


def weights_in(folder: Path) -> Path:
    """The file with the adapter itself.

    Raises:
        DependencyMissingError: there is not exactly one, or no encoder beside it.
    """
    files = sorted(folder.glob("*.safetensors"))
    has_encoder = (folder / ENCODER).is_dir()
    if len(files) != 1 or not has_encoder:
        raise DependencyMissingError(
            f"IP-Adapter {folder.name} has {len(files)} .safetensors files and "
            f"{'an' if has_encoder else 'no'} {ENCODER} folder, expected one and one",
            "put exactly these into its folder",
        )
    return files[0]


def account_of_weights(file: Path, unet: Any) -> Account:  # noqa: ANN401  (diffusers is untyped)
    """What becomes of the tensors of an adapter on this network.

    Raises:
        ValueError: it lacks tensors for layers of the network, or is of a kind not known here.
    """
    from safetensors import safe_open

    with safe_open(str(file), framework="pt") as opened:
        names = list(opened.keys())
        fields = [name for name in opened.metadata() or {} if name != "format"]
    faces = [name for name in names if "_lora." in name]
    if faces:
        raise ValueError(
            f"it holds LoRAs of its own ({several(faces)}), as those for the vectors of faces do"
        )
    projection = {name.removeprefix("image_proj.") for name in names if "image_proj." in name}
    kind = next((each for each in _PROJECTIONS if each in projection), None)
    if kind is None:
        raise ValueError(f"its image_proj is of no kind known here: {several(sorted(projection))}")
    crossing = [
        name for name in unet.attn_processors if not name.endswith("attn1.processor")
    ]  # numbered as the library does: the layers that look at the picture alone lie between them
    wanted = {
        f"ip_adapter.{2 * place + 1}.to_{part}_ip.weight"
        for place in range(len(crossing))
        for part in "kv"
    }
    lacking = sorted(wanted - set(names))
    if lacking:
        raise ValueError(f"it lacks {len(lacking)} tensors of this model: {several(lacking)}")
    pattern = _PROJECTIONS[kind]
    used = {
        name
        for name in names
        if name in wanted
        or (name.startswith("image_proj.") and pattern.fullmatch(name.removeprefix("image_proj.")))
    }
    unused = {
        name: "the model has no such layer" if _LAYER.fullmatch(name) else "of no kind known here"
        for name in names
        if name not in used
    }
    unused |= dict.fromkeys(fields, "of the file")
    return Account(frozenset(used), unused)


def open_encoder(folder: Path) -> Seen:
    """What lies in `image_encoder`: the network, and how pictures are prepared for it.

    Raises:
        ValueError: it lacks tensors, whose numbers would be made up.
    """
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    opened: Any = CLIPVisionModelWithProjection.from_pretrained(
        folder, local_files_only=True, output_loading_info=True
    )
    encoder, told = opened
    lacking = sorted(str(name) for name in told["missing_keys"])
    if lacking:
        raise ValueError(f"its {ENCODER} lacks {len(lacking)} tensors: {several(lacking)}")
    if (folder / _PREPARED).is_file():
        processor = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
    else:
        side = int(str(encoder.config.image_size))
        size = {"height": side, "width": side}
        processor = CLIPImageProcessor(size={"shortest_edge": side}, crop_size=size)
    account = account_of_part(
        folder, CLIPVisionModelWithProjection, encoder, told["unexpected_keys"]
    )
    return Seen(encoder, processor, account)
