"""The folder of downloads: bounded, checked once, swept of what killed processes left."""

import os
import threading
import time
from collections import OrderedDict
from pathlib import Path

from safelight.digests import sha256_of
from safelight.store.disk import is_half_made, sweep_abandoned

KEPT_BYTES = 8 * 2**30
"""Downloads above this are removed, least recently used first."""
IN_USE_SECONDS = 600
"""A download this fresh stays whatever its size: a stage may be about to open it."""
REMEMBERED = 10_000
"""Files whose check is remembered."""


def sweep(folder: Path, kept_bytes: int = KEPT_BYTES) -> None:
    """Remove what killed processes left behind, and downloads that nobody used for long.

    Args:
        folder: may be missing.
        kept_bytes: what downloads may take.
    """
    sweep_abandoned(folder)
    trim(folder, kept_bytes)


def trim(folder: Path, kept_bytes: int = KEPT_BYTES) -> None:
    """Remove the downloads that were used longest ago, until the rest fits."""
    if not folder.is_dir():
        return
    downloads: list[tuple[float, int, Path]] = []
    for path in folder.iterdir():
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue  # another process was faster
        if path.is_file() and not is_half_made(path):
            downloads.append((facts.st_atime, facts.st_size, path))
    total = sum(size for _, size, _ in downloads)
    fresh = time.time() - IN_USE_SECONDS
    for used, size, path in sorted(downloads):
        if total <= kept_bytes or used > fresh:
            break
        path.unlink(missing_ok=True)
        total -= size


def used_now(path: Path) -> None:
    """Make a download the last to be removed; its time of change stays."""
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


class CheckedFiles:
    """Files whose sha256 was compared in this process: not read again while they do not change."""

    def __init__(self) -> None:
        self._known: OrderedDict[Path, tuple[str, int, int, int]] = OrderedDict()
        self._lock = threading.Lock()

    def intact(self, path: Path, sha256: str) -> bool:
        """Whether a file's content has this sha256.

        Raises:
            FileNotFoundError: there is no such file.
        """
        facts = path.stat()
        mark = (sha256, facts.st_ino, facts.st_size, facts.st_mtime_ns)
        with self._lock:
            if self._known.get(path) == mark:
                return True
        if sha256_of(path) != sha256:
            return False
        with self._lock:
            self._known[path] = mark
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return True
