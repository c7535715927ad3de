"""Half-made files, what killed processes leave of them, and a disk's refusals as our errors."""

import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from safelight.errors import (
    DiskFullError,
    ForbiddenPathError,
    MissingFileError,
    StoreUnavailableError,
)
from safelight.private import make_folder
from safelight.process_identity import here, lives
from safelight.store.owners import claim, has_ended

ABANDONED_SECONDS = 7 * 24 * 3600
"""Half-made files whose process cannot be asked, as on other machines that share a disk, are taken
for abandoned after this."""
_WORK = re.compile(r"work-((\d+)-([A-Za-z0-9._]+))-[^-]+")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CROSSED = (errno.EISDIR, errno.ENOTDIR)
"""What must be a file is a folder, or the other way round."""
_REFUSED = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)


def work_prefix() -> str:
    """How names of half-made files and folders start, so that others see whether we still live."""
    return f"work-{claim()}-"


@contextmanager
def half_made(folder: Path) -> Generator[Path]:
    """A fresh path in `folder`; what is not renamed away by the end is removed."""
    make_folder(folder)
    path = folder / f"{work_prefix()}{secrets.token_hex(8)}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def sweep_abandoned(folder: Path) -> None:
    """Remove half-made files of processes that are gone; those of living ones stay."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        owner = _WORK.fullmatch(path.name)
        if owner is None or not _abandoned(path, owner[1], int(owner[2]), owner[3]):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def is_half_made(path: Path) -> bool:
    """Whether a path's name is one that `half_made` or a workspace gives."""
    return _WORK.fullmatch(path.name) is not None


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(path: Path) -> Generator[None]:
    """The operating system's refusals as ours.

    Raises:
        MissingFileError: there is no such file.
        DiskFullError: no room, or the quota is used up.
        ForbiddenPathError: no right to read or write, or a folder where a file should be.
        StoreUnavailableError: the disk itself fails (retried).
    """
    try:
        yield
    except FileNotFoundError as error:
        raise MissingFileError(f"there is no file {path}", "check the artifact's uri") from error
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(
                f"no room left to write {path}", "free space or move VOLUME_ROOT to a larger disk"
            ) from error
        if error.errno in _CROSSED:
            raise ForbiddenPathError(
                f"{path}: {error.strerror}",
                "name a file: a folder is none, and nothing lies below one",
            ) from error
        if error.errno in _REFUSED:
            raise ForbiddenPathError(
                f"{path}: {error.strerror}", "give this user read and write rights on VOLUME_ROOT"
            ) from error
        if error.errno == errno.EXDEV:
            raise ForbiddenPathError(
                f"{path} lies on another file system than what is to become it",
                "mount the whole of its folder from one file system",
            ) from error
        raise StoreUnavailableError(
            f"{path}: {error.strerror or type(error).__name__}",
            "look at the disk that holds VOLUME_ROOT, then run the flow again",
        ) from error


def _abandoned(path: Path, owner: str, pid: int, begun: str) -> bool:
    place, _, start = begun.rpartition(".")
    if place == here().tag and start.isdigit():
        return not lives(pid, int(start))
    if begun.startswith(f"{here().boot}."):  # another container of this machine
        ended = has_ended(owner)
        if ended is not None:
            return ended
    try:
        return time.time() - path.lstat().st_mtime > ABANDONED_SECONDS
    except FileNotFoundError:
        return False  # its owner was faster
