"""RIFE recorded as a CUDA graph: a few hundred small kernels, started as one.

Between two frames of a film the network computes for a few milliseconds, and starting its kernels
one by one takes the host about as long.
"""

from typing import TYPE_CHECKING

from safelight.engines.machine.transfers import Landing, Transfers
from safelight.pixels import Pixels

if TYPE_CHECKING:
    from torch import Tensor

    from safelight.engines.rife.network import Network

WARM_UPS = 2
"""Runs before the recording, in which the libraries choose their kernels."""


def picture_of(made: "Tensor", height: int, width: int) -> "Tensor":
    """(height, width, 3) uint8 on the device, of what the network made, (3, H, W) around 0..1."""
    import torch

    levels = made[:, :height, :width].float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return levels.permute(1, 2, 0).contiguous()


class Replay:
    """The way of near motion through the network, for frames of one size."""

    def __init__(self, network: "Network", pair: "Tensor", height: int, width: int) -> None:
        """Record it.

        Args:
            network: its weights stay where they are as long as this is used.
            pair: (2, 3, H, W) on the device, frames of the size and number format to come.
            height: rows of the picture that is wanted, at most H.
            width: columns, at most W.
        """
        import torch

        self._pair, self._when = pair.clone(), torch.zeros_like(pair[:1, :1])
        self._height, self._width = height, width
        beside, current = torch.cuda.Stream(pair.device), torch.cuda.current_stream(pair.device)
        beside.wait_stream(current)
        with torch.cuda.stream(beside):
            for _ in range(WARM_UPS):
                self._run(network)
        current.wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        # other threads wait for their transfers meanwhile
        with (
            torch.cuda.device(pair.device),
            torch.cuda.graph(self._graph, stream=beside, capture_error_mode="thread_local"),
        ):
            self._made = self._run(network)

    def begin(self, transfers: Transfers, one: "Tensor", two: "Tensor", timestep: float) -> Landing:
        """The frame between two (3, H, W), on its way; see `taken` for how it arrives."""
        self._pair[0].copy_(one)
        self._pair[1].copy_(two)
        self._when.fill_(timestep)
        self._graph.replay()
        return transfers.down(self._made.clone())  # the next replay writes there again

    def taken(self, landing: Landing) -> Pixels | None:
        """(height, width, 3) uint8; None where motion is far, which is `Network.middle`'s."""
        flat = landing.wait()
        if flat[-1]:
            return None
        return flat[:-1].reshape(self._height, self._width, 3).copy()

    def _run(self, network: "Network") -> "Tensor":
        """The bytes of the picture, and one that is 1 where the motion is far."""
        import torch

        made, far = network.near(self._pair, self._when)
        flat = picture_of(made, self._height, self._width).flatten()
        return torch.cat((flat, far.to(torch.uint8).reshape(1)))
