"""The folder for downloads and half-made files: swept when a store is opened."""

import os
import re
import shutil
from pathlib import Path

KEPT_BYTES = 8 * 2**30
"""Downloads above this are removed, least recently used first."""
_WORK = re.compile(r"work-(\d+)-")


def sweep(folder: Path) -> None:
    """Remove what killed processes left behind, and downloads that nobody used for long.

    Args:
        folder: may be missing. Names that start with `work-PID-` belong to that process.
    """
    if not folder.is_dir():
        return
    downloads: list[tuple[float, int, Path]] = []
    for path in folder.iterdir():
        owner = _WORK.match(path.name)
        if owner and not _alive(int(owner[1])):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        elif not owner and path.is_file():
            facts = path.stat()
            downloads.append((facts.st_mtime, facts.st_size, path))
    total = sum(size for _, size, _ in downloads)
    for _, size, path in sorted(downloads):
        if total <= KEPT_BYTES:
            break
        path.unlink(missing_ok=True)
        total -= size


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
