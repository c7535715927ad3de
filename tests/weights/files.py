"""Small weights files, as trainers write them."""

import json
import struct
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

Shapes = Mapping[str, Sequence[int]]
CHECKPOINT = {"model.diffusion_model.out.2.weight": (1, 2)}
LORA = {
    "lora_unet_mid_attn2_to_k.lora_down.weight": (4, 768),
    "lora_unet_mid_attn2_to_k.lora_up.weight": (8, 4),
    "lora_unet_mid_attn2_to_k.alpha": (1,),
}


def safetensors(shapes: Shapes, metadata: Mapping[str, str] | None = None, fill: int = 0) -> bytes:
    """A file of float16 tensors of these shapes, all bytes the same."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    at = 0
    for name, shape in shapes.items():
        end = at + 2 * prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes([fill]) * at


def put(path: Path, shapes: Shapes = CHECKPOINT, fill: int = 0, **metadata: str) -> Path:
    """Write one, with the folders above it; dots in keys of the metadata are given as `__`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {key.replace("__", "."): value for key, value in metadata.items()}
    path.write_bytes(safetensors(shapes, said or None, fill))
    return path
