"""Models that stay loaded in this process, least recently used dropped first."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar, cast

from safelight.settings import settings

T = TypeVar("T")
GIB = 2**30
_lock = threading.RLock()
_kept: OrderedDict[tuple[object, ...], tuple[object, int]] = OrderedDict()


def loaded(
    key: tuple[object, ...], load: Callable[[], T], size_bytes: Callable[[T], int] | int
) -> T:
    """The model under `key`, loaded now unless it is in memory already.

    Args:
        key: everything the loaded model depends on, device and number format included.
        load: makes it.
        size_bytes: memory it takes, or a function that tells.
    """
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return cast(T, _kept[key][0])
        model = load()
        size = size_bytes if isinstance(size_bytes, int) else size_bytes(model)
        _kept[key] = (model, size)
        limit = settings().model_memory_gib * GIB
        while len(_kept) > 1 and sum(size for _, size in _kept.values()) > limit:
            _kept.popitem(last=False)
        return model


def forget_loaded() -> None:
    """Drop all loaded models."""
    with _lock:
        _kept.clear()
