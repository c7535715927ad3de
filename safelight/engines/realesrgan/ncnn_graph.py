"""Networks in ncnn's two-file form, read so that torch can run them too.

One description serves every device: the same layers, the same weights and the same blob names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from safelight.errors import InvalidMediaError
from safelight.pixels import Floats
from safelight.weights.packaged import packaged_bytes

if TYPE_CHECKING:
    import torch


MAGIC = "7767517"
"""First line of every .param file."""
HALF_PRECISION = 0x01306B47
"""Tag before weights that are stored as 16-bit floats; 0 stands before 32-bit ones."""
LEAKY, MULTIPLY, NEAREST = "2", "2", "1"
"""Values of the options `9` of a convolution, `0` of BinaryOp (addition is 0) and of Interp."""


@dataclass(frozen=True)
class Layer:
    """One line of a .param file with its share of the .bin file."""

    kind: str
    """Layer type as ncnn names it."""
    inputs: tuple[str, ...]
    """Blobs it reads."""
    outputs: tuple[str, ...]
    """Blobs it writes."""
    options: Mapping[str, str]
    """Numbered options; a list keeps its commas, its length first."""
    weights: tuple[Floats, ...] = field(default=(), repr=False)
    """Kernel (out, in, k, k) and bias, or slopes."""

    def numbers(self, option: str) -> list[float]:
        """The values of a list option."""
        return [float(value) for value in self.options[option].split(",")[1:]]


def read_graph(param: Path, weights: Path) -> list[Layer]:
    """Read a network of plain convolutions.

    Raises:
        ChecksumMismatchError: one is another file than that of the package.
        InvalidMediaError: not such files, or one does not fit the other.
    """
    lines = packaged_bytes(param).decode().splitlines()
    if lines[:1] != [MAGIC]:
        raise InvalidMediaError(
            f"{param.name} does not start with {MAGIC}", "install the weights package again"
        )
    stored, offset, layers = packaged_bytes(weights), 0, list[Layer]()
    for words in (line.split() for line in lines[2:] if line.strip()):
        reads, writes = int(words[2]), int(words[3])
        names = words[4 : 4 + reads + writes]
        options = dict(word.split("=", 1) for word in words[4 + reads + writes :])
        own, offset = _weights_of(words[0], options, stored, offset)
        layers.append(Layer(words[0], tuple(names[:reads]), tuple(names[reads:]), options, own))
    if offset != len(stored):
        raise InvalidMediaError(
            f"{weights.name} holds {len(stored)} bytes, {param.name} describes {offset}",
            "install the weights package again",
        )
    return layers


def _weights_of(
    kind: str, options: Mapping[str, str], stored: bytes, offset: int
) -> tuple[tuple[Floats, ...], int]:
    if kind == "PReLU":
        slopes = int(options["0"])
        return (np.frombuffer(stored, "<f4", slopes, offset),), offset + 4 * slopes
    if kind != "Convolution":
        return (), offset
    channels, side, count = int(options["0"]), int(options["1"]), int(options["6"])
    half = int.from_bytes(stored[offset : offset + 4], "little") == HALF_PRECISION
    kernel = np.frombuffer(stored, "<f2" if half else "<f4", count, offset + 4)
    offset += 4 + -(-kernel.nbytes // 4) * 4
    bias = np.frombuffer(stored, "<f4", channels, offset)
    shaped = kernel.astype(np.float32).reshape(channels, -1, side, side)
    return (shaped, bias), offset + bias.nbytes


class TorchGraph:
    """Runs a network, or the part between two blobs, with torch."""

    def __init__(
        self,
        layers: list[Layer],
        device: str,
        dtype: "torch.dtype",
        layout: "torch.memory_format | None" = None,
    ) -> None:
        """Put the weights on a device.

        Args:
            layers: the network.
            device: as torch names it.
            dtype: number format of weights and values.
            layout: order of kernels in memory; None leaves it as it is. Values should have the
                same.
        """
        import torch

        self._torch = torch
        self._plans = dict[tuple[str, str], tuple[list[int], dict[str, int]]]()
        self._layers = [
            (
                layer,
                [
                    _laid_out(torch.from_numpy(array.copy()).to(device=device, dtype=dtype), layout)
                    for array in layer.weights
                ],
            )
            for layer in layers
        ]

    def run(self, source: str, target: str, values: "torch.Tensor") -> "torch.Tensor":
        """Compute blob `target` (n, c, h', w') from blob `source` (n, c, h, w)."""
        plan = self._plans.get((source, target))
        if plan is None:
            needed = self._needed(source, target)
            plan = needed, {name: at for at in needed for name in self._layers[at][0].inputs}
            self._plans[source, target] = plan
        needed, last_use = plan
        blobs = {source: values}
        with self._torch.inference_mode():
            for at in needed:
                layer, weights = self._layers[at]
                result = self._apply(layer, weights, [blobs[name] for name in layer.inputs])
                blobs |= dict.fromkeys(layer.outputs, result)
                for name in layer.inputs:
                    if last_use[name] == at and name != target:
                        blobs.pop(name, None)
        return blobs[target]

    def _needed(self, source: str, target: str) -> list[int]:
        wanted, found = {target}, list[int]()
        for at in range(len(self._layers) - 1, -1, -1):
            layer = self._layers[at][0]
            if wanted & (set(layer.outputs) - {source}):
                found.append(at)
                wanted |= set(layer.inputs)
        return found[::-1]

    def _apply(
        self, layer: Layer, weights: list["torch.Tensor"], inputs: list["torch.Tensor"]
    ) -> "torch.Tensor":
        functional = self._torch.nn.functional
        match layer.kind:
            case "Convolution":
                padding = int(layer.options["4"])
                result = functional.conv2d(inputs[0], weights[0], weights[1], padding=padding)
                if layer.options.get("9") == LEAKY:
                    slope = layer.numbers("-23310")[0]
                    result = functional.leaky_relu(result, slope, inplace=True)
            case "PReLU":
                result = functional.prelu(inputs[0], weights[0])
            case "Split":
                result = inputs[0]
            case "Concat":
                result = self._torch.cat(inputs, 1)
            case "Eltwise":
                first, second = layer.numbers("-23301")
                result = inputs[0] * first + inputs[1] * second
            case "BinaryOp":
                result = inputs[0] + inputs[1]
            case "Interp":
                size = float(layer.options["1"])
                result = functional.interpolate(inputs[0], scale_factor=size, mode="nearest")
            case "PixelShuffle":
                result = functional.pixel_shuffle(inputs[0], int(layer.options["0"]))
            case _:
                raise InvalidMediaError(
                    f"layer type {layer.kind} is not one that Real-ESRGAN uses",
                    "use one of the shipped networks",
                )
        return result


def _laid_out(weights: "torch.Tensor", layout: "torch.memory_format | None") -> "torch.Tensor":
    if layout is None or weights.ndim != 4:
        return weights
    return weights.contiguous(memory_format=layout)
