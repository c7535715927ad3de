"""What to do when the device runs out of memory: try again with less, and say so."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from safelight.errors import OutOfMemoryError
from safelight.progress import note

T = TypeVar("T")


def with_less_memory(work: str, rungs: Sequence[tuple[str, Callable[[], T]]]) -> T:
    """Do a piece of work, with a more frugal way each time memory runs out.

    Args:
        work: what is done, for notes and the error.
        rungs: what makes each way more frugal, and the way itself; the first is the ordinary one.

    Raises:
        OutOfMemoryError: even the last way does not fit.
    """
    for position, (means, attempt) in enumerate(rungs):
        try:
            result = attempt()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            give_back()
            if position + 1 == len(rungs):
                raise OutOfMemoryError(
                    f"{work} does not fit into the device's memory even with {means}",
                    "choose a smaller picture or model, or close programs that use the device",
                ) from error
            note(f"out of memory: {work} tried again with {rungs[position + 1][0]}")
        else:
            return result
    raise ValueError("with_less_memory needs at least one way")


def give_back() -> None:
    """Return memory that PyTorch keeps for later to the device."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "ALLOC_FAILED",
    "unable to find an engine to execute",
)
"""What errors without a type of their own say: the CPU's and Metal's allocators, pinned memory,
cuBLAS and cuDNN, and PyTorch when none of cuDNN's ways to convolve got its working memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device, or the machine, had too little memory."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(said in text for said in _MESSAGES)
