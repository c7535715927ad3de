"""The files of a folder; links out of it are not followed, and links to folders never."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.batching.reading.members import (
    LeftAside,
    Members,
    aside,
    check_file_count,
    file_name,
    in_order,
    printable,
)
from safelight.errors import ForbiddenPathError
from safelight.store.disk import disk_errors
from safelight.store.inputs import named_handle
from safelight.store.opening import opened_below


@dataclass(frozen=True)
class FileOnDisk:
    """A plain file below a folder."""

    root: Path
    """From here on no link is followed."""
    path: Path
    """Below it, links followed."""
    name: str
    """As it was met, from the folder."""

    def start(self, most: int) -> bytes:
        """Its first bytes."""
        with opened_below(self.root, self.path) as handle, os.fdopen(os.dup(handle), "rb") as file:
            with disk_errors(self.path):
                return file.read(most)

    @contextmanager
    def opened(self) -> Generator[Path]:
        """A path to the open file."""
        with (
            opened_below(self.root, self.path) as handle,
            named_handle(handle, file_name(self.name)) as path,
        ):
            yield path


def folder_members(folder: Path, below: Path | None = None) -> Members:
    """Every file below a folder.

    Args:
        folder: its links followed already.
        below: a folder above it, links followed, from which on no link is followed when a file is
            opened, whatever has taken the place of a folder; None for the folder itself.

    Raises:
        ForbiddenPathError: a folder in it cannot be read.
        InvalidFieldValueError: it holds too many files.
    """
    title = printable(folder.name)
    found: list[FileOnDisk] = []
    left: list[LeftAside] = []
    folders: list[tuple[str, ...]] = [()]
    while folders:
        above = folders.pop()
        for entry in _entries(folder.joinpath(*above)):
            parts = (*above, entry.name)
            check_file_count(len(found) + len(left) + len(folders) + 1, title)
            name = printable("/".join(parts))
            is_folder = entry.is_dir(follow_symlinks=False)
            if (why := aside(parts)) is not None:
                left.append(LeftAside(name + "/" * is_folder, why.why))
            elif is_folder:
                folders.append(parts)
            elif (path := _file(folder, Path(entry.path))) is None:
                left.append(LeftAside(name, _no_file(entry)))
            else:
                found.append(FileOnDisk(below or folder, path, name))
    return in_order(title, found, left)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise ForbiddenPathError(
            f"the folder {printable(str(folder))} cannot be read: {error.strerror}",
            "give this user the right to read it, or move it away",
        ) from error


def _file(root: Path, path: Path) -> Path | None:
    try:
        there = path.resolve()
        return there if there.is_relative_to(root) and there.is_file() else None
    except (OSError, RuntimeError):  # links in a circle
        return None


def _no_file(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "a link that leads to no file of this folder"
    return "no plain file"
