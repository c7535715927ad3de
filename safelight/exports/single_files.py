"""A batch as one file on this machine: checked before anything is made, whole or not written."""

import fcntl
import os
import re
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from safelight.errors import ForbiddenPathError
from safelight.private import as_started
from safelight.store.disk import disk_errors, half_made, sweep_abandoned
from safelight.store.places import named_once

PART = ".part"
_NAMED = 16
"""Characters of the digest in the name of a part."""


def check_file(file: Path, where: str, what: str, is_one: Callable[[Path], bool]) -> None:
    """Refuse a place for such a file before anything is made for it.

    Args:
        file: the place.
        where: the option that named it.
        what: is made, such as `zip`.
        is_one: whether what lies there is such a file of any batch, which may be replaced.

    Raises:
        ForbiddenPathError: its folder is none, or something else lies there.
    """
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK | os.X_OK):
        raise ForbiddenPathError(
            f"{where} is {str(file)!r}, and {file.parent} is no folder that can be written to",
            f"name a file in a folder of yours with {where}",
        )
    if os.path.lexists(file) and not is_one(file):
        raise ForbiddenPathError(
            f"{where} is {str(file)!r}, which is there and no {what} of a batch",
            f"name another file with {where}, or move that one away",
        )


def write_file(file: Path, chunks: Iterable[bytes], is_same: Callable[[Path], bool]) -> Path:
    """Write such a file, whole or not at all.

    Args:
        file: where.
        chunks: its bytes.
        is_same: whether what lies somewhere is the same batch's, which is replaced; anything else
            stays.

    Returns:
        Where it lies: `file`, or beside it with -2, -3 and so on.
    """
    sweep_abandoned(file.parent)
    with disk_errors(file), half_made(file.parent) as half:
        with as_started(), half.open("xb") as opened:
            for chunk in chunks:
                opened.write(chunk)
            opened.flush()
            os.fsync(opened.fileno())
        return _named(half, file, is_same)


class Resumable(Protocol):
    """A file whose bytes are known by their place, the same each time."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def digest(self) -> str:
        """Equal for two such files when all their bytes are."""
        ...

    def chunks(self, start: int = 0) -> Iterable[bytes]:
        """Its bytes from a place on."""
        ...


def write_on(
    file: Path,
    planned: Resumable,
    is_same: Callable[[Path], bool],
    is_whole: Callable[[Path], bool],
) -> Path:
    """Write such a file, from where an earlier attempt was cut; it has its name only when whole.

    What is there of it meanwhile lies beside it, under a name that says of which bytes it is a
    part. Two that write it at once do so apart.

    Args:
        file: where.
        planned: its bytes.
        is_same: as in `write_file`.
        is_whole: looks into one that was not written at once.
    """
    part = file.with_name(f"{file.name}.{planned.digest[:_NAMED]}{PART}")
    with disk_errors(file), _own(part) as opened:
        if opened is None:
            return write_file(file, planned.chunks(), is_same)
        there = opened.seek(0, os.SEEK_END)
        _append(opened, planned, min(there, planned.size))
        if there and not is_whole(part):  # a machine that lost its power may keep a hole
            _append(opened, planned, 0)
        made = _named(part, file, is_same)
        _sweep_parts(file)
        return made


@contextmanager
def _own(part: Path) -> Generator[BinaryIO | None]:
    """A part that nobody else writes, made where there is none; None where somebody does."""
    with as_started():
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    with os.fdopen(handle, "r+b") as opened:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(handle), part.lstat())
        except OSError:  # also file systems without locks
            mine = False
        if not mine:  # or it was finished by another, and has its name by now
            yield None
            return
        try:
            yield opened
        except OSError:  # no room: what there is of it takes none either
            part.unlink(missing_ok=True)
            raise


def _append(opened: BinaryIO, planned: Resumable, start: int) -> None:
    opened.truncate(start)
    opened.seek(start)
    for chunk in planned.chunks(start):
        opened.write(chunk)
    opened.flush()
    os.fsync(opened.fileno())


def _sweep_parts(file: Path) -> None:
    """Remove parts of other batches and names that nobody writes any more."""
    kind = re.compile(re.escape(file.name) + rf"\.[0-9a-f]{{{_NAMED}}}" + re.escape(PART))
    for path in file.parent.iterdir():
        if kind.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            with suppress(OSError), path.open("rb") as opened:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _named(half: Path, file: Path, is_same: Callable[[Path], bool]) -> Path:
    number, target = 1, file
    while True:
        if is_same(target):
            half.replace(target)
            return target
        if named_once(half, target):
            half.unlink(missing_ok=True)
            return target
        number += 1
        target = file.with_stem(f"{file.stem}-{number}")
