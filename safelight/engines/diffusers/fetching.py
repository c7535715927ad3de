"""Pictures on their way from the device that drew them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from safelight.engines.machine.transfers import Landing, Transfers
from safelight.pixels import Pixels

if TYPE_CHECKING:
    import torch


class Fetching:
    """Batches of pictures: made into bytes on the device, copied while it goes on computing."""

    def __init__(self, landings: Sequence[Landing]) -> None:
        """Of batches that are coming, in order."""
        self.landings = tuple(landings)

    @classmethod
    def of(cls, images: "torch.Tensor") -> "Fetching":
        """Begin to fetch.

        Args:
            images: (N, 3, H, W) float from 0 to 1; values outside are cut off.
        """
        import torch

        levels = (images.float() * 255).round().clamp(0, 255).to(torch.uint8)
        levels = levels.permute(0, 2, 3, 1).contiguous()
        return cls([Transfers(str(levels.device)).down(levels)])

    def wait(self) -> None:
        """Return when all of it has arrived."""
        for landing in self.landings:
            landing.wait()

    def pictures(self) -> list[Pixels]:
        """The pictures, (H, W, 3) uint8 each, of their own memory; waits for them."""
        return [np.array(pixels) for landing in self.landings for pixels in landing.wait()]
