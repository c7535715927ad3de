"""Safetensors files whose bytes depend on what is in them alone.

The library writes metadata in an order that changes from process to process; here names are sorted.
The format: https://github.com/huggingface/safetensors, a length, a JSON header, the tensors.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from safelight.store.disk import disk_errors

if TYPE_CHECKING:
    import torch

FIELD = "safelight"
"""Of the metadata: what we keep beside the tensors, as JSON."""
_TYPES = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float64": "F64",
    "int64": "I64",
    "int32": "I32",
    "uint8": "U8",
    "bool": "BOOL",
}
_ALIGNED = 8


def tensor_bytes(tensors: "Mapping[str, torch.Tensor]", metadata: Mapping[str, str]) -> bytes:
    """A file as bytes.

    Args:
        tensors: by name.
        metadata: text by name.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    parts: list[bytes] = []
    at = 0
    # the widest first, so that all lie as their types want it
    for name in sorted(tensors, key=lambda n: (-tensors[n].element_size(), n)):
        data = _content(tensors[name])
        header[name] = {
            "dtype": _TYPES[str(tensors[name].dtype).removeprefix("torch.")],
            "shape": list(tensors[name].shape),
            "data_offsets": [at, at + len(data)],
        }
        parts.append(data)
        at += len(data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNED)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def write_tensors(
    target: Path, tensors: "Mapping[str, torch.Tensor]", metadata: Mapping[str, str]
) -> None:
    """Write a file.

    Raises:
        DiskFullError: no room is left.
    """
    with disk_errors(target), target.open("wb") as file:
        file.write(tensor_bytes(tensors, metadata))
        file.flush()
        os.fsync(file.fileno())


def read_told(path: Path) -> dict[str, object]:
    """What we kept beside the tensors of a file that we wrote."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as opened:
        return cast("dict[str, object]", json.loads((opened.metadata() or {})[FIELD]))


def told(facts: Mapping[str, object]) -> dict[str, str]:
    """The metadata that `read_told` reads."""
    return {FIELD: json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)}


def _content(tensor: "torch.Tensor") -> bytes:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
