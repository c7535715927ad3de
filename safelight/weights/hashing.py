"""sha256 of weights, computed once for each state of a file: models are gigabytes."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from safelight.remembered import Remembered

_known = Remembered("weights.json")


def weights_sha256(path: Path) -> str:
    """sha256 of a file; of a folder, over the names and sha256s of all files in it, sorted.

    Known ones are kept in memory and in `cache/weights.json` of the volume root, under all that
    changes when a file is replaced, times that archives and copies set back included.
    """
    if path.is_file():
        return _of_file(path)
    total = hashlib.sha256()
    for file in files_of(path):
        total.update(f"{file.relative_to(path).as_posix()} {_of_file(file)}\n".encode())
    return total.hexdigest()


def files_of(path: Path) -> list[Path]:
    """The file itself, or all files below a folder, sorted; linked folders are followed once."""
    if not path.is_dir():
        return [path]
    return sorted(entry for entry in entries_of(path) if entry.is_file())


def entries_of(folder: Path) -> Iterator[Path]:
    """All files, folders, links and pipes below a folder, also behind links to folders."""
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        known = here.stat()
        if (known.st_dev, known.st_ino) in seen:
            continue
        seen.add((known.st_dev, known.st_ino))
        for entry in here.iterdir():
            yield entry
            if entry.is_dir():
                waiting.append(entry)


def stamp_of(known: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is replaced or written: no user can set the time of change back."""
    return known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns, known.st_ctime_ns


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        before = stamp_of(os.fstat(file.fileno()))
        key = " ".join(map(str, (path.resolve(), *before)))
        known = _known.get(key)
        if isinstance(known, str):
            return known
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if stamp_of(os.fstat(file.fileno())) == before:  # else it is being written
            _known.put(key, found)
        return found
