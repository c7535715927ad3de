"""Pictures on their way from the device that drew them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from safelight.engines.machine.transfers import Landing, Transfers
from safelight.errors import PictureRefusedError
from safelight.pixels import Pixels

if TYPE_CHECKING:
    import torch


class Fetching:
    """Batches of pictures: made into bytes on the device, copied while it goes on computing."""

    def __init__(self, landings: Sequence[Landing], whole: Sequence[Landing] = ()) -> None:
        """Of batches that are coming, in order.

        Args:
            landings: the pictures.
            whole: of each batch, whether all values of each picture are numbers.
        """
        self.landings = tuple(landings)
        self.whole = tuple(whole)

    @classmethod
    def of(cls, images: "torch.Tensor") -> "Fetching":
        """Begin to fetch.

        Args:
            images: (N, 3, H, W) float from 0 to 1; values outside are cut off.
        """
        import torch

        levels = (images.float() * 255).round().clamp(0, 255).to(torch.uint8)
        levels = levels.permute(0, 2, 3, 1).contiguous()
        numbers = (~images.isnan()).flatten(1).all(dim=1).to(torch.uint8)
        way = Transfers(str(levels.device))
        return cls([way.down(levels)], [way.down(numbers)])

    @classmethod
    def joined(cls, parts: "Sequence[Fetching]") -> "Fetching":
        """Several as one."""
        return cls(
            [landing for part in parts for landing in part.landings],
            [landing for part in parts for landing in part.whole],
        )

    def wait(self) -> None:
        """Return when all of it has arrived."""
        for landing in self.landings:
            landing.wait()

    def pictures(self) -> list[Pixels | None]:
        """The pictures, (H, W, 3) uint8 each, of their own memory; waits for them.

        None stands where the model gave values that are no numbers.
        """
        numbers = [bool(each) for landing in self.whole for each in landing.wait()]
        made = [np.array(pixels) for landing in self.landings for pixels in landing.wait()]
        return [pixels if fine else None for pixels, fine in zip(made, numbers, strict=True)]


def no_numbers(count: int, among: int) -> PictureRefusedError:
    """Why pictures are refused that no file could hold."""
    return PictureRefusedError(
        f"{count} of {among} pictures hold values that are no numbers: the model overflows at this "
        "precision, or its configs are not those that its weights were made with",
        "where SAFELIGHT_PRECISION is fp16, set it to bf16 or fp32 or name another vae; else "
        "compare the model's configs with their source",
    )
