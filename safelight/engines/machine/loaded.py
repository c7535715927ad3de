"""Models that stay loaded in this process, least recently used dropped first."""

import gc
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

from safelight.settings import settings

T = TypeVar("T")
Key = tuple[object, ...]
GIB = 2**30
_lock = threading.RLock()
_kept: OrderedDict[Key, tuple[object, int]] = OrderedDict()
_gates: dict[Key, threading.RLock] = {}
_neighbours: list[Callable[[], None]] = []
"""What else holds memory of the device."""
_loads = 0
_hits = 0


@dataclass(frozen=True)
class LoadedStats:
    """How often models were loaded, and what is in memory now."""

    loads: int
    """Models loaded since the process started."""
    hits: int
    """Times that a model was in memory already."""
    kept: int
    """Models in memory."""
    kept_bytes: int
    """Memory they take together, by their own account."""


def loaded(key: Key, load: Callable[[], T], size_bytes: Callable[[T], int] | int) -> T:
    """The model under `key`, loaded now unless it is in memory already.

    Two threads that ask for one model load it once; different models load side by side.

    Args:
        key: everything the loaded model depends on, device and number format included.
        load: makes it.
        size_bytes: memory it takes, or a function that tells.
    """
    with _lock:
        if key in _kept:
            return cast(T, _hit(key))
        gate = _gates.setdefault(key, threading.RLock())
    with gate:
        with _lock:
            if key in _kept:
                return cast(T, _hit(key))
        for make_room in _neighbours:
            make_room()
        model = load()
        size = size_bytes if isinstance(size_bytes, int) else size_bytes(model)
        _keep(key, model, size)
        return model


def before_loading(make_room: Callable[[], None]) -> None:
    """Have something called before each load: it gives memory of the device back."""
    if make_room not in _neighbours:
        _neighbours.append(make_room)


def _hit(key: Key) -> object:
    global _hits
    _hits += 1
    _kept.move_to_end(key)
    return _kept[key][0]


def _keep(key: Key, model: object, size: int) -> None:
    global _loads
    with _lock:
        _loads += 1
        _kept[key] = (model, size)
        _gates.pop(key, None)
        limit = settings().model_memory_gib * GIB
        before = len(_kept)
        while len(_kept) > 1 and sum(size for _, size in _kept.values()) > limit:
            _kept.popitem(last=False)
    if len(_kept) < before:
        gc.unfreeze()  # a warm process freezes what outlives a run, models too
        gc.collect()


def loaded_stats() -> LoadedStats:
    """Counts of this process."""
    with _lock:
        return LoadedStats(_loads, _hits, len(_kept), sum(size for _, size in _kept.values()))


def forget_loaded() -> None:
    """Drop all loaded models."""
    with _lock:
        _kept.clear()
