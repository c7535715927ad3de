"""How much work on one foreign file may take."""

import math
import resource
import sys
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from safelight.settings import settings

MIB, GIB = 2**20, 2**30
OUTPUT_BYTES_PER_PIXEL = 4
BUSY = 5
"""A machine with other work may take so many times the seconds until a file is given up."""


class Limits(BaseModel):
    """What one call may take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: int
    """Of processors, all threads together."""
    memory_bytes: int
    """Addresses beyond those in use before the call."""
    output_bytes: int
    """Of the array that comes back, or of any file."""

    @property
    def patience_seconds(self) -> float:
        """After which a call is given up that takes no processor either."""
        return float(BUSY * self.seconds)


def limits_for(file_bytes: int) -> Limits:
    """The limits that the settings name, for a file of this size."""
    known = settings()
    return Limits(
        seconds=math.ceil(known.look_seconds + file_bytes / MIB),
        memory_bytes=round(known.look_memory_gib * GIB),
        output_bytes=round(known.max_input_megapixels * 1_000_000) * OUTPUT_BYTES_PER_PIXEL,
    )


def limit_this_process(limits: Limits) -> None:
    """Have the kernel hold this process to limits from now on; they may be set anew."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime) + limits.seconds)
    _lower(resource.RLIMIT_FSIZE, limits.output_bytes)
    if sys.platform == "linux":  # others count what is not in memory either, or do not count
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _lower(resource.RLIMIT_AS, pages * resource.getpagesize() + limits.memory_bytes)


def _lower(kind: int, wanted: int) -> None:
    most = resource.getrlimit(kind)[1]
    if most != resource.RLIM_INFINITY:
        wanted = min(wanted, most)
    with suppress(ValueError, OSError):  # in use already is more than an outer limit leaves
        resource.setrlimit(kind, (wanted, most))
