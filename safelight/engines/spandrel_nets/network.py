"""Runs an upscaler on windows of a picture, on any device, and says how far it looks."""

from collections.abc import Generator, Sequence
from math import lcm
from threading import Lock
from typing import TYPE_CHECKING, Any

from safelight.engines.machine.device import full_precision
from safelight.engines.machine.enlarging import Bite
from safelight.engines.machine.memory import give_back, is_out_of_memory
from safelight.engines.machine.transfers import Transfers
from safelight.errors import InvalidMediaError, OutOfMemoryError
from safelight.media.guided import smooth
from safelight.media.tiles import scaled
from safelight.pixels import Pixels
from safelight.progress import note

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DEEP = 72
"""Overlap in px of what a network sees for those too deep to see all that they look at: measured
with 345 convolutions in a row (Real-ESRGAN x4plus), whose tiles are then within one level."""
MOST_REACH = 2 * DEEP
"""Overlap in px of the picture at most."""
GREY, COLOUR, WITH_ALPHA = 1, 3, 4
_WINDOWS = ("window_size", "split_size", "ws", "sr_ratio")
"""Attributes by which networks say in what squares they work."""
_LARGEST_WINDOW = 64


class SpandrelRunner:
    """One window after the other, as spandrel itself would compute it."""

    batches = False

    def __init__(self, net: Any, device: str, dtype: "torch.dtype") -> None:  # noqa: ANN401
        """Put a network on a device.

        Args:
            net: a model descriptor of spandrel.
            device: of torch.
            dtype: which the architecture supports; taken where it holds all weights, else fp32.
        """
        self._net = net
        self.dtype = _holding(net, dtype)
        """In which it computes."""
        self.grid = grid_of(net)
        """Windows that begin at multiples of it are cut like the whole picture."""
        self.reach = reach_of(net, self.grid)
        """Overlap of tiles, input px."""
        self.scale = int(net.scale)
        """Output px per input px."""
        self._transfers = Transfers(device)
        self._computing = Lock()
        self._finite = True
        net.to(device, self.dtype)
        net.model.register_forward_hook(self._note_finite)  # before the library cuts infinity off

    def filled(
        self, bites: Sequence[Bite], factor: int, denoise: float, frugal: bool
    ) -> Generator[None]:
        """See `Runner`."""
        del frugal
        for bite in bites:
            window = smooth(bite.window, denoise) if denoise else bite.window
            try:
                with self._computing:
                    bite.target[...] = self._enlarged(window, bite, factor)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                height, width = window.shape[:2]
                # without its trace: the frames in there hold the memory that is short
                raise OutOfMemoryError(
                    f"no memory for a window of {width}x{height} px",
                    "lower tile, or choose a smaller upscaler",
                ) from error.with_traceback(None)
            yield

    def release(self) -> None:
        """Give cached memory back to the device."""
        give_back()

    def _enlarged(self, window: Pixels, bite: Bite, factor: int) -> Pixels:
        import torch

        with torch.inference_mode():
            levels = self._transfers.up([window])
            values = levels[0].permute(2, 0, 1).to(torch.float32).mul_(1 / 255)
            made = self._native(values)
            core = averaged_down(made[:, *scaled(bite.core, self.scale)], self.scale, factor)
            found = core.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
            return found.permute(1, 2, 0).cpu().numpy()

    def _native(self, values: "Tensor") -> "Tensor":
        """(3, h, w) around 0..1 to (3, s h, s w) float32."""
        import torch

        made = self._computed(values, self.dtype)
        if self._finite:
            return made
        if self.dtype != torch.float32:
            note(f"numbers too large for {str(self.dtype).rpartition('.')[2]}: done in float32")
            try:
                self._net.to(torch.float32)
                made = self._computed(values, torch.float32)
            finally:
                self._net.to(self.dtype)
        if not self._finite:
            raise InvalidMediaError(
                "the upscaler makes pixels that are no numbers", "choose another one as model"
            )
        return made

    def _computed(self, values: "Tensor", dtype: "torch.dtype") -> "Tensor":
        import torch

        self._finite = True
        seen = values.to(dtype)[None]
        with full_precision(dtype):
            if self._net.input_channels == GREY:
                made = torch.cat([self._net(each) for each in seen.split(1, 1)], 1)
            elif self._net.input_channels == WITH_ALPHA:
                made = self._net(torch.cat([seen, torch.ones_like(seen[:, :1])], 1))[:, :COLOUR]
            else:
                made = self._net(seen)
        return made[0].float()

    def _note_finite(self, _net: object, _seen: object, made: "Tensor") -> None:
        self._finite = self._finite and bool(made.isfinite().all())


def _holding(net: Any, dtype: "torch.dtype") -> "torch.dtype":  # noqa: ANN401
    """A number format in which no weight becomes infinite: fp16 ends at 65504."""
    import torch

    most = torch.finfo(dtype).max
    fits = all(bool((each.abs() <= most).all()) for each in net.model.parameters())
    return dtype if fits else torch.float32


def averaged_down(native: "Tensor", scale: int, factor: int) -> "Tensor":
    """Area-average (c, s h, s w) to (c, f h, f w), each input px by itself.

    Args:
        native: float32.
        scale: s, px of it per input px.
        factor: f, wanted px per input px, at most s.
    """
    if scale == factor:
        return native
    import torch

    weights = torch.zeros(factor, scale)
    for wanted in range(factor):
        for given in range(scale):
            first, last = (
                max(wanted * scale, given * factor),
                min((wanted + 1) * scale, (given + 1) * factor),
            )
            weights[wanted, given] = max(last - first, 0) / scale
    weights = weights.to(native.device)
    channels, height, width = native.shape
    blocks = native.reshape(channels, height // scale, scale, width // scale, scale)
    made = torch.einsum("fs,chswt,gt->chfwg", weights, blocks, weights)
    return made.reshape(channels, height // scale * factor, width // scale * factor)


def reach_of(net: Any, grid: int) -> int:  # noqa: ANN401
    """Overlap of tiles in input px, a multiple of the grid.

    Networks of convolutions alone see one px further with each; what sees through attention, or is
    deeper than that, gets what was measured.

    Args:
        net: a model descriptor of spandrel.
        grid: see `grid_of`.
    """
    from torch import nn

    sees = 0
    for module in net.model.modules():
        if isinstance(module, nn.Conv2d):
            sees += max(
                int(dilation) * (int(size) // 2)
                for size, dilation in zip(module.kernel_size, module.dilation, strict=True)
            )
        elif isinstance(module, nn.Linear | nn.ConvTranspose2d | nn.LayerNorm | nn.AvgPool2d):
            sees = DEEP
    shrinks = int(getattr(net.model, "shuffle_factor", None) or 1)
    reach = min(min(sees, DEEP) * shrinks, MOST_REACH)
    return -(-reach // grid) * grid


def grid_of(net: Any) -> int:  # noqa: ANN401
    """What the places of windows have to be multiples of, so that squares fall on squares.

    Args:
        net: a model descriptor of spandrel.
    """
    sides = {int(net.size_requirements.multiple_of)}
    for module in net.model.modules():
        for name in _WINDOWS:
            found = getattr(module, name, None)
            for side in found if isinstance(found, list | tuple) else (found,):
                if isinstance(side, int) and 1 < side <= _LARGEST_WINDOW:
                    sides.add(side)
    together = lcm(*sides)
    return together if together <= _LARGEST_WINDOW else max(sides)
