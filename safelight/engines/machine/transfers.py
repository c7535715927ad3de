"""Pixels on their way between numpy and a device, beside the work there instead of between it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from safelight.pixels import Pixels

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Landing:
    """Pixels that are coming back from a device."""

    pixels: "torch.Tensor"
    """Where they arrive, in the memory of the machine."""
    arrived: "torch.cuda.Event | None"
    """Happens once they are there; None says that they are."""

    def wait(self) -> Pixels:
        """The pixels, once they are there; gives the interpreter to other threads until then."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return cast(Pixels, self.pixels.numpy())

    def take(self) -> Pixels:
        """The pixels in ordinary memory that is the caller's own, once they are there."""
        pixels = self.wait()
        return pixels if self.arrived is None else pixels.copy()


class Transfers:
    """To and from one device.

    On CUDA each direction has a stream of its own and pinned memory: nothing waits on the host, and
    neither way waits for the other. PyTorch keeps pinned memory for the next transfer, and gives it
    out again only after the one before has ended.
    """

    def __init__(self, device: str) -> None:
        import torch

        self._torch, self._device = torch, torch.device(device)
        cuda = self._device.type == "cuda"
        self._ways = (torch.cuda.Stream(device), torch.cuda.Stream(device)) if cuda else None

    def up(self, arrays: Sequence[Pixels]) -> "torch.Tensor":
        """Copy arrays of one shape, (h, w, 3) uint8, to the device.

        Returns:
            (n, h, w, 3) uint8, which work on the device's current stream may use.
        """
        torch = self._torch
        shape = len(arrays), *arrays[0].shape
        if self._ways is None:
            return _filled(torch.empty(shape, dtype=torch.uint8), arrays).to(self._device)
        way, computing = self._ways[0], torch.cuda.current_stream(self._device)
        with torch.cuda.stream(way):
            staged = _filled(torch.empty(shape, dtype=torch.uint8, pin_memory=True), arrays)
            there = staged.to(self._device, non_blocking=True)
        computing.wait_stream(way)
        there.record_stream(computing)
        return there

    def down(self, pixels: "torch.Tensor") -> Landing:
        """Begin to copy a contiguous uint8 tensor, made on the device's current stream, back."""
        torch = self._torch
        if self._ways is None:
            return Landing(pixels.cpu(), None)
        way, arrived = self._ways[1], torch.cuda.Event(blocking=True)
        way.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(way):
            landed = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=True)
            landed.copy_(pixels, non_blocking=True)
            arrived.record(way)
        pixels.record_stream(way)
        return Landing(landed, arrived)

    def settle(self) -> None:
        """Wait for all that was begun, transfers and the work between them."""
        if self._ways is not None:
            for stream in (*self._ways, self._torch.cuda.current_stream(self._device)):
                stream.synchronize()


def _filled(staged: "torch.Tensor", arrays: Sequence[Pixels]) -> "torch.Tensor":
    for place, array in zip(staged.numpy(), arrays, strict=True):
        np.copyto(place, array)
    return staged
