"""Opens files of strangers once: what was looked at is what is read, whatever happens to the name.

Between the look at a path and its use a file, or a folder above it, may be put in its place that is
a link to elsewhere, or a pipe that nobody writes to.
"""

import os
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG

from safelight.errors import ForbiddenPathError, MissingFileError
from safelight.store.disk import disk_errors

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe does not keep us


@contextmanager
def opened_below(root: Path, path: Path) -> Generator[int]:
    """A handle of a plain file below a folder; no link is followed on the way.

    Args:
        root: the folder, links followed.
        path: the file, below it, links followed.

    Raises:
        MissingFileError: it is gone.
        ForbiddenPathError: there is a link on the way now, no right to read, or no plain file.
    """
    *folders, name = path.relative_to(root).parts
    held: list[int] = []
    try:
        try:
            held.append(os.open(root, _FOLDER & ~os.O_NOFOLLOW))
            for folder in folders:
                held.append(os.open(folder, _FOLDER, dir_fd=held[-1]))
            held.append(os.open(name, _FILE, dir_fd=held[-1]))
        except FileNotFoundError as error:
            raise MissingFileError(f"there is no file {path}", "correct the path") from error
        except OSError as error:
            raise ForbiddenPathError(
                f"{path} cannot be opened: {error.strerror}",
                "name a plain file, and give this user the right to read it",
            ) from error
        if not S_ISREG(os.fstat(held[-1]).st_mode):
            raise ForbiddenPathError(f"{path} is not a plain file", "name a plain file")
        yield held[-1]
    finally:
        for handle in held:
            os.close(handle)


@contextmanager
def path_of_handle(handle: int, name: str, folder: Path) -> Generator[Path]:
    """A path for readers that want one: it leads to the open file, not to what bears its name.

    Args:
        handle: of a plain file, open to read.
        name: what the path's last part is to be, since messages and readers look at it.
        folder: one of our own that is empty.
    """
    path = folder / name
    with disk_errors(path):
        if sys.platform == "linux":
            path.symlink_to(f"/proc/{os.getpid()}/fd/{handle}")
        else:  # elsewhere such a path shares the place in the file with all its readers
            with os.fdopen(os.dup(handle), "rb") as source, path.open("xb") as copy:
                shutil.copyfileobj(source, copy)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
