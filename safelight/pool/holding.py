"""What a warm process holds in memory, its own and its device's."""

import sys
from typing import Any

import psutil

from safelight.pool.messages import Memory


def memory_held() -> Memory:
    """As of now; loads no library to find out."""
    loaded = sys.modules.get("safelight.engines.machine.loaded")
    stats = loaded.loaded_stats() if loaded is not None else None
    used, total = _gpu()
    return Memory(
        resident_bytes=psutil.Process().memory_info().rss,
        models=stats.kept if stats else 0,
        models_bytes=stats.kept_bytes if stats else 0,
        gpu_used_bytes=used,
        gpu_total_bytes=total,
    )


def _gpu() -> tuple[int, int]:
    torch: Any = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)  # None while torch is being imported
    if cuda is None or not cuda.is_initialized():
        return 0, 0
    free, total = cuda.mem_get_info()
    return total - free, total
