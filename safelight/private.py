"""What is made on the volume is for its owner alone: pictures, prompts, parameters, passwords."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from safelight.settings import settings

_before: list[int] = []
"""The mask that this process was started with."""


def mask() -> int:
    """Rights that others do not get, as `umask` counts them."""
    return int(settings().umask, 8)


def keep_private() -> None:
    """Make files and folders of this process, and of those it starts, by `SAFELIGHT_UMASK`."""
    before = os.umask(mask())
    if not _before:
        _before.append(before)


@contextmanager
def as_started() -> Generator[None]:
    """Make files as the person's other programs do: for copies that they ask for."""
    if not _before:
        yield
        return
    ours = os.umask(_before[0])
    try:
        yield
    finally:
        os.umask(ours)


def make_folder(folder: Path) -> None:
    """A folder, and those above it that are missing, each for its owner alone."""
    missing = [above for above in (folder, *folder.parents) if not above.exists()]
    for above in reversed(missing):
        above.mkdir(0o777 & ~mask(), exist_ok=True)


def make_file(path: Path) -> int:
    """A handle to write a new file, for its owner alone.

    Raises:
        FileExistsError: there is something of this name.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666 & ~mask())
