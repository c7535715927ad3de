"""sha256 of weights, computed once for each state of a file: models are gigabytes."""

import hashlib
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safelight.remembered import Remembered

_known = Remembered("weights.json")
_PIECE = 4 * 2**20


def weights_sha256(path: Path) -> str:
    """sha256 of a file; of a folder, over the names and sha256s of all files in it, sorted.

    Known ones are kept in memory and in `cache/weights.json` of the volume root, under all that
    changes when a file is replaced, times that archives and copies set back included.
    """
    if path.is_file():
        return _of_file(path)
    return combined({f.relative_to(path).as_posix(): _of_file(f) for f in files_of(path)})


@contextmanager
def hashing_many() -> Generator[None]:
    """Many files are hashed in here: what is known of them is kept some at a time."""
    with _known.together():
        yield


def combined(hashes: Mapping[str, str]) -> str:
    """The sha256 of a folder from those of its files by their names in it, "." a single file."""
    if set(hashes) == {"."}:
        return hashes["."]
    total = hashlib.sha256()
    for name in sorted(hashes, key=lambda name: name.split("/")):
        total.update(f"{name} {hashes[name]}\n".encode())
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


def sha256_of_handle(handle: int, path: Path) -> str:
    """sha256 of an open file.

    Args:
        handle: open to read; where it stands is kept.
        path: its name, which what is kept about it is found by.
    """
    before = stamp_of(os.fstat(handle))
    key = " ".join(map(str, (path.resolve(), *before)))
    known = _known.get(key)
    if isinstance(known, str):
        return known
    total, at = hashlib.sha256(), 0
    while piece := os.pread(handle, _PIECE, at):
        total.update(piece)
        at += len(piece)
    found = total.hexdigest()
    if stamp_of(os.fstat(handle)) == before:  # else it is being written
        _known.put(key, found)
    return found


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return sha256_of_handle(file.fileno(), path)
