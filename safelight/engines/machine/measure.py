"""Seconds and peak memory of a piece of work, on the CPU and on CUDA."""

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Absence:
    """How long a piece of work was set aside while others of its thread worked."""

    def __init__(self) -> None:
        """It was not, yet."""
        self.seconds = 0.0

    def count(self) -> None:
        """Count it for what is measured in the current context."""
        _absence.set(self)


_absence: ContextVar[Absence | None] = ContextVar("absence", default=None)


def absent_seconds() -> float:
    """How long the work of the current context was set aside by now."""
    absence = _absence.get()
    return 0.0 if absence is None else absence.seconds


@dataclass
class Measured:
    """Filled in when the measured block ends."""

    seconds: float = 0.0
    """Wall time, less what others worked meanwhile in the same thread."""
    peak_bytes: int = 0
    """Highest resident memory of the process while the block ran; 0 where the system hides it."""
    gpu_peak_bytes: int = 0
    """Highest memory taken on the CUDA device; 0 on other devices."""


@contextmanager
def measured() -> Generator[Measured]:
    """Measure the block inside."""
    result = Measured()
    _reset_peak()
    started, absent = time.perf_counter(), absent_seconds()
    try:
        yield result
    finally:
        result.seconds = time.perf_counter() - started - (absent_seconds() - absent)
        result.peak_bytes = _resident_peak()
        result.gpu_peak_bytes = _gpu_peak()


def _reset_peak() -> None:
    if _CLEAR_REFS.exists():
        try:
            _CLEAR_REFS.write_text("5")  # proc(5): resets the peak resident set size
        except OSError:
            return  # a hardened container forbids it; the peak since the start is kept
    cuda = _cuda_in_use()
    if cuda is not None:
        cuda.reset_peak_memory_stats()


def _resident_peak() -> int:
    if not _STATUS.exists():
        return 0
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _gpu_peak() -> int:
    cuda = _cuda_in_use()
    return 0 if cuda is None else int(cuda.max_memory_allocated())


def _cuda_in_use() -> Any | None:  # noqa: ANN401  (a module of torch)
    """torch.cuda where this process uses it; measuring must not load a GPU library by itself.

    While another thread imports torch, its module stands there unfinished, and uses no device yet.
    """
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    in_use = getattr(cuda, "is_initialized", None)
    return cuda if in_use is not None and in_use() else None
