"""Real-ESRGAN: enlarges pictures tile by tile, on the CPU with ncnn, on CUDA and Metal with torch.

Both engines run the same files and agree within one 8-bit level in fp32.
"""

from typing import ClassVar

from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import EnlargeRequest, LocalEngine, Request
from safelight.engines.machine.device import device_class, resolve_device, torch_dtype
from safelight.engines.machine.enlarging import Bite, Enlarger, Runner, physical_cores
from safelight.engines.machine.loaded import loaded
from safelight.engines.realesrgan.ncnn_backend import NcnnRunner
from safelight.engines.realesrgan.network import (
    NATIVE,
    NETWORKS,
    Model,
    Network,
    averaged_down,
    weights_files,
)
from safelight.engines.realesrgan.torch_backend import TorchRunner
from safelight.errors import DependencyMissingError
from safelight.installed import version
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
MEMORY_PER_STORED_BYTE = 8
"""fp32 instead of fp16, and kernels laid out for Winograd convolution."""


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
            DependencyMissingError: there is no network of that name, or the weights package or the
                device is not there.
        """
        return identity(_model(request))

    def open_enlarger(self, request: EnlargeRequest) -> Enlarger:
        """See `open_enlarger` of this module."""
        return open_enlarger(_model(request), request.factor, request.tile, request.denoise)


def _model(request: Request) -> Model:
    if not isinstance(request, EnlargeRequest):
        raise TypeError(f"realesrgan enlarges, it cannot serve a {type(request).__name__}")
    if request.model not in NETWORKS:
        # another engine may know it by that name
        raise DependencyMissingError(
            f"realesrgan has no network {request.model[:80]!r}; it has {', '.join(NETWORKS)}",
            "choose one of these as model, or put the upscaler into upscale_models of the models "
            "folder",
        )
    return request.model


ENGINE = RealEsrgan()
