"""sha256 of weights, computed once for each state of a file: models are gigabytes."""

import hashlib
import json
import os
import tempfile
import threading
from pathlib import Path

from safelight.digests import sha256_of
from safelight.settings import settings

_lock = threading.Lock()
_known: dict[str, str] = {}


def weights_sha256(path: Path) -> str:
    """sha256 of a file; of a folder, over the names and sha256s of all files in it, sorted.

    Known ones are kept in memory and in `cache/weights.json` of the volume root, under path, size
    and time of change.
    """
    if path.is_file():
        return _of_file(path)
    total = hashlib.sha256()
    for file in files_of(path):
        total.update(f"{file.relative_to(path).as_posix()} {_of_file(file)}\n".encode())
    return total.hexdigest()


def files_of(path: Path) -> list[Path]:
    """The file itself, or all files below a folder, sorted."""
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _of_file(path: Path) -> str:
    stat = path.stat()
    key = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    with _lock:
        if key not in _known:
            _known.update(_kept())
        if key not in _known:
            _known[key] = sha256_of(path)
            _keep(key, _known[key])
        return _known[key]


def _cache_file() -> Path:
    return settings().volume_root / "cache" / "weights.json"


def _kept() -> dict[str, str]:
    try:
        known = json.loads(_cache_file().read_text())
    except (OSError, ValueError):  # not there yet, or damaged: all of it can be computed again
        return {}
    return known if isinstance(known, dict) else {}


def _keep(key: str, sha256: str) -> None:
    file = _cache_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".part-", dir=file.parent)
        with os.fdopen(handle, "w") as part:
            json.dump({**_kept(), key: sha256}, part, indent=0)
        os.replace(name, file)
    except OSError:  # a volume that cannot be written costs time, not correctness
        return
