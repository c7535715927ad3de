"""Real-ESRGAN on CUDA and Metal, with torch: the device computes while pixels come and go."""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate, pairwise
from threading import Lock
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from safelight.engines.machine.device import full_precision
from safelight.engines.machine.enlarging import Bite
from safelight.engines.machine.memory import is_out_of_memory
from safelight.engines.machine.transfers import Landing, Transfers
from safelight.engines.realesrgan.guided import smoothed
from safelight.engines.realesrgan.ncnn_graph import TorchGraph, read_graph
from safelight.engines.realesrgan.network import (
    NATIVE,
    TAIL_BYTES,
    TAIL_REACH,
    TAIL_TILE,
    Network,
    out_of_memory,
    weights_files,
)
from safelight.media.tiles import Box, Tile, scaled, tiles

if TYPE_CHECKING:
    import torch
    from torch import Tensor

IN_FLIGHT = 3
"""Batches begun and not yet in the result: one comes back, one is computed, one waits."""
COPIERS = 4
"""Threads that copy into the result. Its memory is touched there for the first time, which one
thread does slower than an accelerator makes it."""
ROOM = 0.5
"""Part of the free memory that the last layers may take at once; the estimate is a rough one."""


class TorchRunner:
    """Several windows at a time; also on the CPU, to compare."""

    batches: bool = True
    grid: int = 1
    channels_last: ClassVar[bool] = True
    """Whether the channels of a pixel lie side by side, which tensor cores read directly."""

    def __init__(self, network: Network, device: str, dtype: "torch.dtype") -> None:
        import torch

        self._torch, self._device, self._dtype = torch, device, dtype
        self._seam, self._batch_pixels = network.seam, network.batch_pixels
        # Metal has no fast path for it
        self._layout = (
            torch.channels_last
            if self.channels_last and device != "mps"
            else torch.contiguous_format
        )
        layers = read_graph(*weights_files(network))
        self._graph = TorchGraph(layers, device, dtype, self._layout)
        self._transfers = Transfers(device)
        self._beginning = Lock()
        """Held while work is handed to the device, which changes settings of the whole process."""
        self._half = torch.full((1,), 0.5, dtype=torch.float32, device=device)

    def network(self, values: "Tensor") -> "Tensor":
        """The network alone, on tensors of this runner's device and number format.

        Args:
            values: (n, 3, h, w) in 0..1.

        Returns:
            (n, 3, 4 h, 4 w), about 0..1.
        """
        values = values.contiguous(memory_format=self._layout)
        with full_precision(self._dtype):
            return self._graph.run("data", "output", values)

    def filled(
        self, bites: Sequence[Bite], factor: int, denoise: float, frugal: bool
    ) -> Generator[None]:
        """See `Runner`."""
        pending: deque[list[Future[None]]] = deque()
        copiers = ThreadPoolExecutor(COPIERS, thread_name_prefix="realesrgan")
        try:
            for batch in _batches(bites, 0 if frugal else self._batch_pixels):
                landing = self._begun(batch, factor, denoise, frugal)
                pending.append(
                    [
                        copiers.submit(_land, landing, start, bite)
                        for start, bite in zip(_starts(batch), batch, strict=False)
                    ]
                )
                if len(pending) == IN_FLIGHT:
                    yield from _results(pending.popleft())
            while pending:
                yield from _results(pending.popleft())
        except BaseException:  # also when closed early
            copiers.shutdown(cancel_futures=True)
            self._transfers.settle()
            raise
        finally:
            copiers.shutdown()

    def release(self) -> None:
        """Give cached memory back to the device."""
        if self._device.startswith("cuda"):
            self._torch.cuda.empty_cache()
        elif self._device == "mps":
            self._torch.mps.empty_cache()

    def _begun(self, batch: Sequence[Bite], factor: int, denoise: float, frugal: bool) -> Landing:
        try:
            return self._begin(batch, factor, denoise, frugal)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # without its trace: the frames in there hold the memory that is short
            raise out_of_memory(batch[0].window) from error.with_traceback(None)

    def _begin(self, batch: Sequence[Bite], factor: int, denoise: float, frugal: bool) -> Landing:
        torch = self._torch
        with self._beginning, torch.inference_mode(), full_precision(self._dtype):
            seen = self._transfers.up([bite.window for bite in batch])
            values = seen.permute(0, 3, 1, 2).float()
            if denoise:
                values = smoothed(values, denoise)
            values = values.mul_(1 / 255).to(self._dtype).contiguous(memory_format=self._layout)
            made = self._graph.run("data", self._seam or "output", values)
            starts = _starts(batch)
            pixels = torch.empty(starts[-1], dtype=torch.uint8, device=self._device)
            for at, bite in enumerate(batch):
                place = pixels[starts[at] : starts[at + 1]].view(bite.target.shape)
                self._finish(place, made[at : at + 1], bite.core, factor, frugal)
            return self._transfers.down(pixels)

    def _finish(
        self, pixels: "Tensor", made: "Tensor", core: Box, factor: int, frugal: bool
    ) -> None:
        """Fill (H, W, 3) uint8 with the core of one window, enlarged."""
        if self._seam is None:
            self._write(pixels, made[..., *scaled(core, NATIVE)], factor)
            return
        for part in self._parts(core, made.shape[2], made.shape[3], frugal):
            native = self._graph.run(self._seam, "output", made[..., *part.window])
            rows, columns = part.core
            place = _moved(rows, -core[0].start), _moved(columns, -core[1].start)
            self._write(
                pixels[scaled(place, factor)],
                native[..., *scaled(part.core_in_window, NATIVE)],
                factor,
            )

    def _parts(self, core: Box, height: int, width: int, frugal: bool) -> list[Tile]:
        """The bites of a window's core that the last layers take, places in the window."""
        rows, columns = core
        tall, wide = rows.stop - rows.start, columns.stop - columns.start
        need = (tall + 2 * TAIL_REACH) * (wide + 2 * TAIL_REACH) * TAIL_BYTES
        need *= self._dtype.itemsize / 4
        whole = not frugal and need <= ROOM * self._free_bytes()
        side = max(tall, wide) if whole else TAIL_TILE
        cores = (
            (_moved(part.core[0], rows.start), _moved(part.core[1], columns.start))
            for part in tiles(tall, wide, side, 0)
        )
        return [
            Tile((down, across), (_grown(down, height), _grown(across, width)))
            for down, across in cores
        ]

    def _free_bytes(self) -> int:
        """Memory of the device that nobody uses; 0 where that cannot be asked."""
        if not self._device.startswith("cuda"):
            return 0
        cuda = self._torch.cuda
        cached = cuda.memory_reserved(self._device) - cuda.memory_allocated(self._device)
        return cuda.mem_get_info(self._device)[0] + cached

    def _write(self, pixels: "Tensor", native: "Tensor", factor: int) -> None:
        """Fill (H, W, 3) uint8 from (1, 3, h, w) around 0..1, averaged down and rounded.

        In few passes over the memory, for the small network makes pixels nearly as fast as they
        can be read: 8-bit numbers are cut off, not rounded, so half a level is added.
        """
        values = averaged_down(native, factor).clamp_(0, 1)
        levels = self._torch.add(self._half, values, alpha=255)
        pixels.copy_(levels[0].permute(1, 2, 0))


def averaged_down(native: "Tensor", factor: int) -> "Tensor":
    """`averaged_down` of the CPU for (n, c, 4 h, 4 w), in float32 unless factor is 4."""
    if factor == NATIVE:
        return native
    if factor == 3:
        return _three_quarters(_three_quarters(native, 2), 3)
    halved = _halved(_halved(native, 2), 3)
    return halved if factor == 2 else _halved(_halved(halved, 2), 3)


def _halved(values: "Tensor", axis: int) -> "Tensor":
    first, second = (_every(values, axis, at, 2) for at in range(2))
    return (first.float() + second).mul_(0.5)


def _three_quarters(values: "Tensor", axis: int) -> "Tensor":
    first, second, third, fourth = (_every(values, axis, at, 4).float() for at in range(4))
    shape = list(values.shape)
    shape[axis] = shape[axis] // 4 * 3
    result = first.new_empty(shape)
    _every(result, axis, 0, 3).copy_(first * 0.75 + second * 0.25)
    _every(result, axis, 1, 3).copy_((second + third) * 0.5)
    _every(result, axis, 2, 3).copy_(third * 0.25 + fourth * 0.75)
    return result


def _every(values: "Tensor", axis: int, start: int, stride: int) -> "Tensor":
    return values[:, :, start::stride] if axis == 2 else values[:, :, :, start::stride]


def _batches(bites: Sequence[Bite], pixels: int) -> Iterator[Sequence[Bite]]:
    """Bites of equal windows together, `pixels` at most in all.

    Where many are equal comes first: the last batch, after which nothing is left to do meanwhile,
    is a small one.
    """
    alike: dict[tuple[int, ...], list[Bite]] = {}
    for bite in bites:
        alike.setdefault(bite.window.shape, []).append(bite)
    for (height, width, _), group in sorted(alike.items(), key=_count, reverse=True):
        most = max(pixels // (height * width), 1)
        count = -(-len(group) // most)
        ends = [len(group) * at // count for at in range(count + 1)]
        yield from (group[start:stop] for start, stop in pairwise(ends))


def _count(alike: tuple[tuple[int, ...], list[Bite]]) -> int:
    return len(alike[1])


def _starts(batch: Sequence[Bite]) -> list[int]:
    """Where the pixels of each bite lie among those of the batch, and where the last end."""
    return list(accumulate((bite.target.size for bite in batch), initial=0))


def _land(landing: Landing, start: int, bite: Bite) -> None:
    pixels = landing.wait()[start : start + bite.target.size]
    np.copyto(bite.target, pixels.reshape(bite.target.shape))


def _results(copies: Sequence[Future[None]]) -> Generator[None]:
    for copy in copies:
        yield copy.result()


def _moved(span: slice, by: int) -> slice:
    return slice(span.start + by, span.stop + by)


def _grown(span: slice, length: int) -> slice:
    return slice(max(span.start - TAIL_REACH, 0), min(span.stop + TAIL_REACH, length))
