"""What to do when the device runs out of memory: try again with less, and say so."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from safelight.errors import OutOfMemoryError
from safelight.progress import note

T = TypeVar("T")


def until_it_fits(
    attempt: Callable[[], T], save: Callable[[Exception], None], release: Callable[[], None]
) -> T:
    """Do a piece of work, again each time memory runs out and something can be saved.

    Args:
        attempt: the work; called again after each `save`.
        save: makes the next attempt more frugal and says so in a note. Gets the error without its
            trace, whose frames hold the memory that is short; raises when nothing is left to save.
        release: gives memory back that nobody uses, before the next attempt.

    Raises:
        Exception: what `save` raises, and errors of `attempt` that are not about memory.
    """
    while True:
        try:
            return attempt()
        except (RuntimeError, MemoryError, OutOfMemoryError) as error:
            if not is_out_of_memory(error):
                raise
            save(error.with_traceback(None))
        release()  # here, where no error holds any of it


def with_less_memory(work: str, rungs: Sequence[tuple[str, Callable[[], T]]]) -> T:
    """Do a piece of work, with a more frugal way each time memory runs out.

    Args:
        work: what is done, for notes and the error.
        rungs: what makes each way more frugal, and the way itself; the first is the ordinary one.

    Raises:
        OutOfMemoryError: even the last way does not fit.
    """
    ways = iter(rungs)
    means, way = next(ways)

    def save(error: Exception) -> None:
        nonlocal means, way
        further = next(ways, None)
        if further is None:
            give_back()
            raise OutOfMemoryError(
                f"{work} does not fit into the device's memory even with {means}",
                "choose a smaller picture or model, or close programs that use the device",
            ) from error
        means, way = further
        note(f"out of memory: {work} tried again with {means}")

    return until_it_fits(lambda: way(), save, give_back)


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
_WHOLE_MESSAGES = ("could not create a primitive", "could not create a memory object")
"""All that oneDNN says of it; longer texts that begin alike are about other things."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device, or the machine, had too little memory."""
    if isinstance(error, OutOfMemoryError):
        return True
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).strip()
    return isinstance(error, RuntimeError) and (
        text in _WHOLE_MESSAGES or any(said in text for said in _MESSAGES)
    )
