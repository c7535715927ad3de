"""Text encoders in single files: CLIP and T5, as ComfyUI's users keep them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from safelight.engines.diffusers.accounts import Account
from safelight.engines.diffusers.filling import empty, filled, require_whole
from safelight.engines.diffusers.stored import Stored
from safelight.errors import InvalidMediaError
from safelight.weights.flow_layouts import clip_of_flow, t5_config
from safelight.weights.json_files import read_object
from safelight.weights.parts import CLIP_G, CLIP_L

if TYPE_CHECKING:
    import torch

_INNER = "transformer."
"""Stands before the names of an encoder that lies in a file with other parts."""
_ACTS = {CLIP_L: "quick_gelu", CLIP_G: "gelu"}
_PROJECTION = "text_projection.weight"
_TABLE, _SHARED = "encoder.embed_tokens.weight", "shared.weight"
_OF_T5 = ("T5Tokenizer", "T5TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")


def clip_from(
    stored: Stored, start: str, what: str, dtype: "torch.dtype", *, projects: bool
) -> tuple[Any, Account]:
    """A text encoder of CLIP.

    Args:
        stored: its file.
        start: how its names begin there.
        what: clip_l or clip_g.
        dtype: what is computed in.
        projects: whether the pipeline reads its projection, as Stable Diffusion 3 does; CLIP-L's
            files leave it out where it changes nothing.

    Raises:
        InvalidMediaError: it lacks tensors, or is another network's.
    """
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    begin = _begin(stored, start, "text_model.")
    told = clip_of_flow(stored.shapes, begin, _ACTS[what], stored.name)
    config = CLIPTextConfig(**cast("dict[str, Any]", told))
    kind = CLIPTextModelWithProjection if projects else CLIPTextModel
    expected = empty(lambda: kind(config)).state_dict()

    def place(name: str) -> tuple[str, ...]:
        bare = name.removeprefix("text_model.")
        return next(((each,) for each in (name, bare) if each in expected), ())

    made, account = filled(stored, begin, expected, place, dtype)
    assumed: dict[str, object] = {}
    if _PROJECTION in expected and _PROJECTION not in made and what == CLIP_L:
        made[_PROJECTION] = torch.eye(config.hidden_size, dtype=dtype)
        assumed["text_projection"] = "none"
    require_whole(made, expected, f"text encoder {what}", stored.name)
    return _loaded(kind, config, made, dtype), Account(account.used, {}, assumed)


def t5_from(stored: Stored, start: str, dtype: "torch.dtype") -> tuple[Any, Account]:
    """The encoder of T5; arguments and errors as of `clip_from`."""
    from transformers import T5Config, T5EncoderModel

    if any(name.startswith("enc.blk.") for name in stored.shapes):
        raise InvalidMediaError(
            f"{stored.name} has the names that llama.cpp gives T5, which are not known here",
            "bring t5xxl_fp16.safetensors or t5xxl_fp8_e4m3fn.safetensors",
        )
    begin = _begin(stored, start, "encoder.")
    table = f"{begin}{_SHARED if f'{begin}{_SHARED}' in stored.shapes else _TABLE}"
    shapes = {**stored.shapes, f"{begin}{_SHARED}": stored.shapes.get(table, ())}
    config = T5Config(**cast("dict[str, Any]", t5_config(shapes, begin, stored.name)))
    expected = dict(empty(lambda: T5EncoderModel(config)).state_dict())
    del expected[_TABLE]  # the same tensor by another name

    def place(name: str) -> tuple[str, ...]:
        return (_SHARED,) if f"{begin}{name}" == table else (name,) if name != _SHARED else ()

    made, account = filled(stored, begin, expected, place, dtype)
    require_whole(made, expected, "text encoder t5xxl", stored.name)
    return _loaded(T5EncoderModel, config, made, dtype), account


def tokenizer_of_t5(folder: Path) -> Any:  # noqa: ANN401
    """The tokenizer of a folder, pinned.

    Raises:
        InvalidMediaError: it is of another class.
    """
    import transformers

    config = folder / "tokenizer_config.json"
    named = read_object(config).get("tokenizer_class") if config.is_file() else _OF_T5[0]
    if named not in _OF_T5:
        raise InvalidMediaError(
            f"the tokenizer in {folder.name} is a {str(named)[:80]}, expected one of "
            f"{', '.join(_OF_T5)}",
            "put the files of T5's tokenizer there",
        )
    return transformers.T5Tokenizer.from_pretrained(folder, local_files_only=True)


def _begin(stored: Stored, start: str, first: str) -> str:
    inner = f"{start}{_INNER}"
    return inner if any(name.startswith(inner + first) for name in stored.shapes) else start


def _loaded(kind: Any, config: Any, made: Any, dtype: "torch.dtype") -> Any:  # noqa: ANN401
    # by the library's own way, which knows the layers that half precision is too coarse for
    return kind.from_pretrained(None, config=config, state_dict=made, dtype=dtype).eval()
