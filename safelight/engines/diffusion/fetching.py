"""Pictures on their way from the device that drew them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self, cast

import numpy as np

from safelight.engines.diffusion.drawing import Pixels

if TYPE_CHECKING:
    import torch


class Fetching:
    """A batch of pictures: made into bytes on the device, copied while it goes on computing."""

    def __init__(self, images: "torch.Tensor") -> None:
        """Begin to fetch.

        Args:
            images: (N, 3, H, W) float from 0 to 1; values outside are cut off.
        """
        import torch

        levels = (images.float() * 255).round().clamp(0, 255).to(torch.uint8)
        levels = levels.permute(0, 2, 3, 1).contiguous()
        self._arrived: list[tuple[torch.Tensor, torch.cuda.Event | None]] = []
        if levels.device.type != "cuda":
            self._arrived.append((levels.cpu(), None))
            return
        host = torch.empty(levels.shape, dtype=torch.uint8, pin_memory=True)
        host.copy_(levels, non_blocking=True)
        done = torch.cuda.Event()
        done.record()
        self._arrived.append((host, done))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Several batches as one."""
        whole = cls.__new__(cls)
        whole._arrived = [arrived for part in parts for arrived in part._arrived]
        return whole

    def wait(self) -> None:
        """Return when all of it has arrived."""
        for _, done in self._arrived:
            if done is not None:
                done.synchronize()

    def pictures(self) -> list[Pixels]:
        """The pictures, (H, W, 3) uint8 each, of their own memory; waits for them."""
        self.wait()
        found = [cast("list[Pixels]", list(host.numpy())) for host, _ in self._arrived]
        return [np.array(picture) for pictures in found for picture in pictures]
