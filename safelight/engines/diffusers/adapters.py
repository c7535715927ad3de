"""LoRAs of families that diffusers itself puts on: what became of their layers."""

import re
from pathlib import Path
from typing import Any

from safelight.engines.diffusers.accounts import Account, several

PARTS = ("transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
"""Of a pipeline, whose layers such files change."""
_LEAF = re.compile(r"\.(lora_|lora\.|alpha$|diff)")
_LEFT_OUT = re.compile(r"dora_scale|lora_magnitude_vector|hada_|lokr_|oft_|\.w_norm|\.b_norm")
"""Tensors that the library drops or takes for something else."""


def require_known(path: Path) -> None:
    """Refuse a file with kinds of tensors that the library leaves out without a word.

    Raises:
        ValueError: with the first of them.
    """
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as opened:
        left_out = [name for name in opened.keys() if _LEFT_OUT.search(name)]
    if left_out:
        raise ValueError(
            f"{len(left_out)} of its tensors are of no kind known for this family: "
            f"{several(left_out)}"
        )


def account_of_adapter(pipeline: Any, path: Path, name: str) -> Account:  # noqa: ANN401
    """What became of the layers of a file that was put on a pipeline.

    Args:
        pipeline: of diffusers.
        path: of the file.
        name: that its adapter has there.
    """
    read = pipeline.lora_state_dict(path.parent, weight_name=path.name)
    held = read[0] if isinstance(read, tuple) else read
    there = {
        _layer_of(f"{part}.{parameter}")
        for part in PARTS
        if getattr(pipeline, part, None) is not None
        for parameter, _ in getattr(pipeline, part).named_parameters()
        if f".{name}." in parameter
    }
    layers = {_layer_of(str(tensor)) for tensor in held}
    left = sorted(layers - there)
    return Account(frozenset(layers & there), dict.fromkeys(left, "the model has no such layer"))


def _layer_of(tensor: str) -> str:
    return _LEAF.split(tensor)[0]
