"""Real-ESRGAN: enlarges pictures tile by tile, on the CPU with ncnn, on CUDA and Metal with torch.

Both engines run the same files and agree within one 8-bit level in fp32.
"""

from collections.abc import Callable
from contextlib import closing
from threading import Lock
from typing import ClassVar

import numpy as np

from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import EnlargeRequest, LocalEngine, Request
from safelight.engines.machine.device import device_class, resolve_device, torch_dtype
from safelight.engines.machine.loaded import loaded
from safelight.engines.machine.memory import until_it_fits
from safelight.engines.realesrgan.ncnn_backend import NcnnRunner, physical_cores
from safelight.engines.realesrgan.network import (
    NATIVE,
    NETWORKS,
    Bite,
    Model,
    Network,
    Runner,
    averaged_down,
    weights_files,
)
from safelight.engines.realesrgan.torch_backend import TorchRunner
from safelight.errors import ContractMismatchError, OutOfMemoryError
from safelight.installed import version
from safelight.media.guided import REACH as DENOISE_REACH
from safelight.media.tiles import scaled, tiles
from safelight.pixels import Pixels
from safelight.progress import note, step
from safelight.settings import settings
from safelight.weights.packaged import packaged_sha256

__all__ = [
    "ENGINE",
    "NATIVE",
    "NETWORKS",
    "Bite",
    "Enlarger",
    "Model",
    "NcnnRunner",
    "Network",
    "RealEsrgan",
    "Runner",
    "TorchRunner",
    "averaged_down",
    "identity",
    "open_enlarger",
    "physical_cores",
    "weights_files",
]

REVISION = 2
"""Raised when our arithmetic changes a pixel on the CPU."""
TORCH_REVISION = 2
"""The same for other devices."""
SMALLEST_TILE = 64
"""Below this the overlap costs more than it saves: windows are mostly neighbours."""
TOGETHER = 8
"""Frames that are worked on at once at most where an accelerator computes: while it has one, others
come and go, and the processor's cores do what is left to do to them."""
MEMORY_PER_STORED_BYTE = 8
"""fp32 instead of fp16, and kernels laid out for Winograd convolution."""


class Enlarger:
    """Enlarges pictures of any size with one network; memory depends on the tile alone."""

    def __init__(
        self, runner: Runner, network: Network, factor: int, tile: int, denoise: float
    ) -> None:
        self._runner = runner
        self.factor, self.denoise = factor, denoise
        self.tile = tile
        """Side of a tile; lowered when memory runs out."""
        self.reach = network.reach + (DENOISE_REACH if denoise else 0)
        """Overlap of tiles, input px."""
        self.frugal = not runner.batches
        """Whether windows go to the device one by one; set when memory runs out."""
        self.together = max(2, min(physical_cores() // 2, TOGETHER)) if runner.batches else 1
        """How many threads may enlarge pictures at once."""
        self._saving = Lock()

    def enlarge(self, image: Pixels, on_tile: Callable[[int, int], None] = step) -> Pixels:
        """Enlarge (H, W, 3) uint8 sRGB to (H * factor, W * factor, 3).

        Args:
            image: the picture.
            on_tile: called with how many tiles are done and how many there are, first with 0; what
                it raises ends the work.

        Raises:
            OutOfMemoryError: no room for the result, or for tiles of 64 px.
            StopRequestedError: the run was asked to stop.
        """
        height, width, channels = image.shape
        shape = height * self.factor, width * self.factor, channels
        try:
            target = np.empty(shape, np.uint8)
        except MemoryError as error:
            raise OutOfMemoryError(
                f"a result of {shape[1]}x{shape[0]} px takes {np.prod(shape) / 2**30:.1f} GiB, "
                "more than there is",
                "lower upscale_factor, or use a machine with more memory",
            ) from error
        tried = self.tile, self.frugal

        def attempt() -> None:
            nonlocal tried
            tried = self.tile, self.frugal
            self._fill(target, image, on_tile, *tried)

        def save(error: Exception) -> None:
            with self._saving:
                if tried == (self.tile, self.frugal):  # else another picture has saved some
                    self._save_memory(error)

        until_it_fits(attempt, save, self._runner.release)
        return target

    def enlarge_window(self, window: Pixels) -> Pixels:
        """Enlarge one window, its edges taken for the edges of the picture."""
        height, width = window.shape[:2]
        target = np.empty((height * self.factor, width * self.factor, 3), np.uint8)
        bite = Bite(window, (slice(0, height), slice(0, width)), target)
        with closing(self._runner.filled([bite], self.factor, self.denoise, self.frugal)) as done:
            next(done)
        return target

    def close(self) -> None:
        """Give working memory back; kept until then, because taking it anew for each frame costs
        a tenth of the time. The network stays loaded."""
        self._runner.release()

    def _fill(
        self,
        target: Pixels,
        image: Pixels,
        on_tile: Callable[[int, int], None],
        tile: int,
        frugal: bool,
    ) -> None:
        height, width = image.shape[:2]
        bites = [
            Bite(image[part.window], part.core_in_window, target[scaled(part.core, self.factor)])
            for part in tiles(height, width, tile, self.reach, self._runner.grid)
        ]
        with closing(self._runner.filled(bites, self.factor, self.denoise, frugal)) as filled:
            on_tile(0, len(bites))
            for done, _ in enumerate(filled, 1):
                on_tile(done, len(bites))

    def _save_memory(self, error: Exception) -> None:
        if self.frugal and self.tile <= SMALLEST_TILE:
            raise error
        if not self.frugal:
            self.frugal = True
            note("out of memory: tiles are enlarged one by one")
            return
        smaller = max(self.tile // 2, SMALLEST_TILE)
        note(f"out of memory: tile lowered from {self.tile} to {smaller} px")
        self.tile = smaller


def open_enlarger(model: Model, factor: int, tile: int, denoise: float = 0.0) -> Enlarger:
    """An enlarger on the device of the settings; the network is loaded once per process.

    Args:
        model: which network.
        factor: output px per input px, 1 to 4 along each side.
        tile: side of a tile, input px; at least 64.
        denoise: 0 to 1, how far noise is smoothed before enlarging.

    Raises:
        DependencyMissingError: the weights package or the device is not there.
    """
    network, device = NETWORKS[model], resolve_device()
    if device == "cpu":
        key = ("realesrgan", network.file, device, "fp32")
        runner = loaded(key, lambda: NcnnRunner(network), _memory_of(network))
    else:
        dtype = torch_dtype(device, settings().precision)
        key = ("realesrgan", network.file, device, str(dtype))
        runner = loaded(key, lambda: TorchRunner(network, device, dtype), _memory_of(network))
    return Enlarger(runner, network, factor, tile, denoise)


def identity(*models: Model) -> EngineIdentity:
    """The engine as cache keys and records name it; loads nothing."""
    device = device_class()
    library, revision = ("ncnn", REVISION) if device == "cpu" else ("torch", TORCH_REVISION)
    return EngineIdentity(
        engine_id="realesrgan",
        version=f"{library} {version(library)}+{revision}",
        weights=tuple(
            packaged_sha256(path) for model in models for path in weights_files(NETWORKS[model])
        ),
        device_class=device,
    )


def _memory_of(network: Network) -> int:
    return MEMORY_PER_STORED_BYTE * weights_files(network)[1].stat().st_size


class RealEsrgan(LocalEngine):
    """Enlarges with the networks that are installed."""

    engine_id: ClassVar[str] = "realesrgan"

    def identity(self, request: Request) -> EngineIdentity:
        """Library and files of the network.

        Raises:
            ContractMismatchError: there is no network of that name.
            DependencyMissingError: the weights package or the device is not there.
        """
        return identity(_model(request))

    def open_enlarger(self, request: EnlargeRequest) -> Enlarger:
        """See `open_enlarger` of this module."""
        return open_enlarger(_model(request), request.factor, request.tile, request.denoise)


def _model(request: Request) -> Model:
    if not isinstance(request, EnlargeRequest):
        raise TypeError(f"realesrgan enlarges, it cannot serve a {type(request).__name__}")
    if request.model not in NETWORKS:
        raise ContractMismatchError(
            f"realesrgan has no network {request.model!r}; it has {', '.join(NETWORKS)}",
            "choose one of these as model",
        )
    return request.model


ENGINE = RealEsrgan()
