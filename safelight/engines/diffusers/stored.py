"""Files of weights, read one tensor at a time: safetensors, fp8 too, GGUF and pickles."""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safelight.errors import DependencyMissingError, InvalidMediaError
from safelight.weights.gguf_files import BLOCKS, GgufTensor, gguf_header
from safelight.weights.safety import is_gguf, is_pickled

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

_SCALES = ("scale_weight", "weight_scale")
"""What the weight beside it is multiplied by, where it was stored in eight bits, by ComfyUI."""
_OF_EIGHT_BITS = ("scale_input", "input_scale", "comfy_quant", "scaled_fp8")
"""Beside them: for computing in eight bits, or that they are there."""
_FORMATS = frozenset({"float8_e4m3fn", "float8_e5m2"})
"""What `comfy_quant` may call it; others pack several values into a byte."""
_TYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
_SCALES_OF_BLOCKS = {
    "Q4_0": slice(0, 2),
    "Q4_1": slice(0, 4),
    "Q5_0": slice(0, 2),
    "Q5_1": slice(0, 4),
    "Q8_0": slice(0, 2),
    "Q2_K": slice(80, 84),
    "Q3_K": slice(108, 110),
    "Q4_K": slice(0, 4),
    "Q5_K": slice(0, 4),
    "Q6_K": slice(208, 210),
    "IQ4_NL": slice(0, 2),
    "IQ4_XS": slice(0, 2),
}
"""Where in a block of each kind the scales lie, as float16: all else are whole numbers."""


class Stored:
    """An open file of weights.

    Args:
        name: of the file, for errors.
        shapes: of its tensors.
        read: gives one of them, as it is stored.
    """

    def __init__(
        self,
        name: str,
        shapes: Mapping[str, tuple[int, ...]],
        read: "Callable[[str], torch.Tensor]",
    ) -> None:
        self.name, self.shapes, self._read = name, shapes, read

    def tensor(self, name: str, dtype: "torch.dtype") -> "torch.Tensor":
        """A tensor as numbers of this kind; one of GGUF's blocks stays in blocks.

        Raises:
            InvalidMediaError: it is packed in a way that is not known.
        """
        held = self.held(name)
        if is_blocks(held):
            return held
        scale = self._scale(name)
        if scale is None:
            return held.to(dtype)
        factor = self._read(scale).float()
        if factor.numel() not in (1, held.shape[0]):
            raise InvalidMediaError(
                f"{self.name} scales {name} by {tuple(factor.shape)} numbers, expected one, or one "
                "for each row",
                "get the model in fp16, bf16 or plain fp8, or as GGUF",
            )
        rows = factor.reshape(-1, *[1] * (held.ndim - 1)) if factor.numel() > 1 else factor
        return (held.float() * rows).to(dtype)

    def held(self, name: str) -> "torch.Tensor":
        """A tensor as it is stored: numbers, or GGUF's blocks.

        Raises:
            InvalidMediaError: it is packed in a way that is not known.
        """
        held = self._read(name)
        if not is_blocks(held) and not held.is_floating_point():
            raise InvalidMediaError(
                f"{self.name} stores {name} as {str(held.dtype).removeprefix('torch.')}, which no "
                "model here computes with: it is quantised in a way that is not known",
                "get the model in fp16, bf16 or fp8, or as GGUF",
            )
        return held

    def _scale(self, name: str) -> str | None:
        layer, _, leaf = name.rpartition(".")
        if leaf != "weight":
            return None
        told = f"{layer}.comfy_quant"
        if told in self.shapes:
            said = bytes(self._read(told).flatten().tolist()).decode("utf-8", "replace")
            try:
                form = json.loads(said).get("format")
            except (ValueError, AttributeError):
                form = said[:80]
            if form not in _FORMATS:
                raise InvalidMediaError(
                    f"{self.name} stores {name} as {str(form)[:80]!r}, expected one of "
                    f"{', '.join(sorted(_FORMATS))}",
                    "get the model in fp16, bf16 or fp8, or as GGUF",
                )
        return next((at for each in _SCALES if (at := f"{layer}.{each}") in self.shapes), None)


def is_scale(name: str) -> bool:
    """Whether a tensor is multiplied into the weight beside it when that is read."""
    return name.rpartition(".")[2] in _SCALES


def of_eight_bits(name: str) -> str | None:
    """Why a tensor takes no part that is about others, which are stored in eight bits."""
    leaf = name.rpartition(".")[2]
    return "for computing in eight bits, which is not done" if leaf in _OF_EIGHT_BITS else None


def is_blocks(tensor: "torch.Tensor") -> bool:
    """Whether a tensor holds quantised blocks of GGUF."""
    return hasattr(tensor, "quant_type")


@contextmanager
def opened(path: Path) -> Generator[Stored]:
    """A file that was looked into before.

    Raises:
        DependencyMissingError: it is GGUF and the package gguf is not installed.
        InvalidMediaError: a block of it has a scale that is no finite number.
    """
    if is_gguf(path):
        yield _gguf(path)
    elif is_pickled(path):
        from safelight.engines.diffusers.tensors import tensors_in

        held = tensors_in(path)
        yield Stored(path.name, {n: tuple(t.shape) for n, t in held.items()}, held.__getitem__)
    else:
        from safetensors import safe_open

        with safe_open(str(path), framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
            yield Stored(path.name, shapes, file.get_tensor)


def _gguf(path: Path) -> Stored:
    if find_spec("gguf") is None:  # diffusers computes with its blocks
        raise DependencyMissingError(
            f"the package gguf, which {path.name} is read with, is missing", "run: pip install gguf"
        )
    header = gguf_header(path)
    content = np.memmap(path, np.uint8, "r")

    def read(name: str) -> "torch.Tensor":
        return _gguf_tensor(content, header[name], f"{path.name}: {name}")

    return Stored(path.name, {name: each.shape for name, each in header.items()}, read)


def _gguf_tensor(content: Any, told: GgufTensor, name: str) -> "torch.Tensor":  # noqa: ANN401
    import torch
    from diffusers.quantizers.gguf.utils import GGUFParameter
    from gguf import GGMLQuantizationType

    held = np.array(content[told.first : told.first + told.size])
    if told.kind in _TYPES:
        return torch.from_numpy(held.view(_TYPES[told.kind]).reshape(told.shape))
    if told.kind == "BF16":
        return torch.from_numpy(held).view(torch.bfloat16).reshape(told.shape)
    kind = GGMLQuantizationType[told.kind]
    bytes_of_row = told.size // max(int(np.prod(told.shape[:-1])), 1)
    block = _block_size(told)
    scales = held.reshape(-1, block)[:, _SCALES_OF_BLOCKS[told.kind]]
    if not np.isfinite(np.ascontiguousarray(scales).view("<f2")).all():
        raise InvalidMediaError(
            f"{name} holds values that are no finite numbers", "get the model again"
        )
    rows = torch.from_numpy(held.reshape(*told.shape[:-1], bytes_of_row))
    made: Any = GGUFParameter
    return made(rows, quant_type=kind)


def _block_size(told: GgufTensor) -> int:
    return next(size for name, _, size in BLOCKS.values() if name == told.kind)
