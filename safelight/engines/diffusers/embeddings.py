"""Textual inversions: what a file says to each text encoder of a model.

There are three layouts: vectors alone (`emb_params`, or the one tensor of a file that diffusers
saved under its word), vectors for the two encoders of XL (`clip_l`, `clip_g`), and the pickles of
the first web UI (`string_to_param`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from safelight.engines.diffusers.accounts import Account

if TYPE_CHECKING:
    import torch

_ALONE, _IN_PICKLES = "emb_params", "string_to_param"
_BY_ENCODER = {"": "clip_l", "_2": "clip_g"}
"""Ends of the names of a pipeline's encoders, to the vectors made for them."""
_ABOUT = {
    "string_to_token": "the word is the file's name",
    "name": "the word is the file's name",
    **dict.fromkeys(("step", "sd_checkpoint", "sd_checkpoint_name", "hash"), "of the training"),
}
"""Fields that are no vectors, and why they do not count."""


@dataclass(frozen=True)
class Embedding:
    """All of a file."""

    vectors: "dict[str, torch.Tensor]"
    """By the names that the file has for them."""
    fields: tuple[str, ...]
    """What it holds besides."""


def read_embedding(path: Path) -> Embedding:
    """Read a file of any of the layouts.

    Raises:
        ValueError: a pickle that is no embedding.
    """
    import torch
    from safetensors import safe_open

    if path.suffix.lower() == ".safetensors":
        with safe_open(str(path), framework="pt") as opened:
            vectors = {name: opened.get_tensor(name) for name in opened.keys()}
            fields = (name for name in opened.metadata() or {} if name != "format")
            return Embedding(vectors, tuple(fields))
    held = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(held, dict):
        raise ValueError(f"it holds a {type(held).__name__}, expected vectors by name")  # noqa: TRY004  (a file's fault)
    named = cast("dict[object, object]", held)
    inside = named.get(_IN_PICKLES, named)
    if not isinstance(inside, dict):
        raise ValueError(f"its {_IN_PICKLES} is no set of vectors")  # noqa: TRY004
    start = f"{_IN_PICKLES}." if inside is not named else ""
    tensors = {
        f"{start}{name}": tensor
        for name, tensor in cast("dict[object, object]", inside).items()
        if isinstance(tensor, torch.Tensor)
    }
    fields = [str(name) for name in named if name != _IN_PICKLES and str(name) not in tensors]
    return Embedding(tensors, tuple(fields))


def vectors_for(
    embedding: Embedding, widths: Mapping[str, int]
) -> "tuple[dict[str, torch.Tensor], Account]":
    """The vectors for each text encoder, (vectors, width) each, and what became of the rest.

    Args:
        embedding: the file.
        widths: of the words that each encoder reads, by the end of its name ("" or "_2").

    Raises:
        ValueError: it was made for other encoders, or its vectors are none.
    """
    held = embedding.vectors
    names = _chosen(held, tuple(widths))
    found = {end: _checked(held[name], widths[end]) for end, name in names.items()}
    used = frozenset(names.values())
    unused = {
        name: "the model has no such text encoder"
        if name in _BY_ENCODER.values()
        else f"of no layout known here beside {', '.join(sorted(used))}"
        for name in held
        if name not in used
    }
    unused |= {name: _ABOUT.get(name, "says nothing of vectors") for name in embedding.fields}
    return found, Account(used, unused)


def _chosen(held: "Mapping[str, torch.Tensor]", ends: tuple[str, ...]) -> dict[str, str]:
    if len(ends) > 1:
        names = {end: _BY_ENCODER[end] for end in ends if end in _BY_ENCODER}
        if len(names) == len(ends) and set(names.values()) <= held.keys():
            return names
        expected = "clip_l and clip_g"
    else:
        end = next(iter(ends), "")
        made_for = _BY_ENCODER.get(end, "")
        for name in (_ALONE, made_for if end else ""):
            if name in held:
                return {end: name}
        if len(held) == 1:
            return {end: next(iter(held))}
        expected = "one"
    raise ValueError(f"it holds {', '.join(sorted(held)) or 'nothing'}, expected {expected}")


def _checked(vectors: "torch.Tensor", width: int) -> "torch.Tensor":
    """(vectors, width) float; one vector may stand alone.

    Raises:
        ValueError: other sizes, or values that are no finite numbers.
    """
    import torch

    flat = vectors.detach()
    flat = flat[None] if flat.dim() == 1 else flat
    if flat.dim() != 2 or not flat.is_floating_point() or flat.shape[0] < 1:
        raise ValueError(
            f"it holds {tuple(vectors.shape)} {vectors.dtype}, expected vectors of {width} numbers"
        )
    if flat.shape[1] != width:
        raise ValueError(f"its vectors are {flat.shape[1]} wide, the model's are {width}")
    if not bool(torch.isfinite(flat).all()):
        raise ValueError("its vectors hold values that are no finite numbers")
    return flat
