"""A batch as one file on this machine: checked before anything is made, whole or not written."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from safelight.errors import ForbiddenPathError
from safelight.private import as_started
from safelight.store.disk import disk_errors, half_made, sweep_abandoned
from safelight.store.places import named_once


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
        number, target = 1, file
        while True:
            if is_same(target):
                half.replace(target)
                return target
            if named_once(half, target):
                return target
            number += 1
            target = file.with_stem(f"{file.stem}-{number}")
