"""Runs a network that restores faces, always with the same result."""

from threading import Lock
from typing import TYPE_CHECKING, Any

from safelight.engines.machine.device import full_precision
from safelight.engines.machine.memory import is_out_of_memory
from safelight.engines.machine.transfers import Transfers
from safelight.errors import InvalidMediaError, OutOfMemoryError
from safelight.pixels import Pixels

if TYPE_CHECKING:
    from torch import Tensor

GFPGAN = "GFPGAN"


class Restorer:
    """One face after the other.

    GFPGAN, RestoreFormer and CodeFormer all take and make levels from -1 to 1. spandrel scales
    those of one of them alone, and lets GFPGAN draw new noise each time; so they are called here.
    """

    def __init__(self, net: Any, device: str) -> None:  # noqa: ANN401
        """Put a network on a device, in float32.

        Args:
            net: a model descriptor of spandrel.
            device: of torch.
        """
        net.to(device)
        self._network = net.model
        # the noise that its file holds
        self._options = {"randomize_noise": False} if net.architecture.id == GFPGAN else {}
        self._transfers = Transfers(device)
        self._one = Lock()

    def restore(self, face: Pixels) -> Pixels:
        """Mend (512, 512, 3) uint8 sRGB.

        Raises:
            OutOfMemoryError: too little memory.
            InvalidMediaError: it makes pixels that are no numbers.
        """
        try:
            with self._one:
                return self._made(face)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # without its trace: the frames in there hold the memory that is short
            raise OutOfMemoryError(
                "no memory to restore a face of 512x512 px",
                "set detail.restore_faces to false, or free memory of the device",
            ) from error.with_traceback(None)

    def _made(self, face: Pixels) -> Pixels:
        import torch

        with torch.inference_mode(), full_precision(torch.float32):
            levels = self._transfers.up([face])[0].permute(2, 0, 1).to(torch.float32)
            made: Tensor = self._network(levels[None].div_(127.5).sub_(1), **self._options)[0]
            if not bool(made.isfinite().all()):
                raise InvalidMediaError(
                    "the restorer makes pixels that are no numbers", "choose another restorer"
                )
            found = made[0].float().add_(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
            return found.permute(1, 2, 0).cpu().numpy()
