"""LoRAs of families that diffusers itself puts on: what became of their layers."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safelight.engines.diffusers.accounts import Account, several
from safelight.engines.diffusers.flow_loras import renamed

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


def put_adapter(pipeline: Any, path: Path, name: str) -> Account:  # noqa: ANN401
    """Put a file on a pipeline; what became of its layers.

    Args:
        pipeline: of diffusers, with a transformer.
        path: of the file.
        name: that its adapter gets there.

    Raises:
        ValueError: it does not fit.
    """
    theirs = renamed(path, pipeline)
    if theirs is not None:
        pipeline.load_lora_weights(dict(theirs.tensors), adapter_name=name)
        pipeline.set_adapters([name])
        return _account(pipeline, theirs.tensors, name, theirs.lacking)
    pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name)
    pipeline.set_adapters([name])  # fails where no layer of the model was found in it
    read = pipeline.lora_state_dict(path.parent, weight_name=path.name)
    return _account(pipeline, read[0] if isinstance(read, tuple) else read, name)


def _account(
    pipeline: Any,  # noqa: ANN401
    held: Iterable[str],
    name: str,
    lacking: Iterable[str] = (),
) -> Account:
    there = {
        _layer_of(f"{part}.{parameter}")
        for part in PARTS
        if getattr(pipeline, part, None) is not None
        for parameter, _ in getattr(pipeline, part).named_parameters()
        if f".{name}." in parameter
    }
    layers = {_layer_of(str(tensor)) for tensor in held}
    left = [*sorted(layers - there), *lacking]
    return Account(frozenset(layers & there), dict.fromkeys(left, "the model has no such layer"))


def _layer_of(tensor: str) -> str:
    return _LEAF.split(tensor)[0]
