"""Files of a watched folder: which are there, which have stopped growing, what becomes of them.

Everything is found by looking again, which network shares allow as well; they tell of no events.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from safelight.errors import ForbiddenPathError, MissingFileError
from safelight.store.disk import disk_errors
from safelight.store.inputs import named_handle
from safelight.store.opening import opened_below

UNDER_WAY = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".download", ".filepart", "~")
"""Endings of what another program has not finished; it gets another name then."""
BESIDE = (".txt", ".xmp", ".json", ".csv", ".ini", ".db", ".thm", ".log")
"""Endings of what programs save beside pictures; it takes no part."""
_OURS = ".safelight-"
"""Begins the name of a file that is about to be deleted."""


@dataclass(frozen=True)
class Seen:
    """A file as it was met."""

    name: str
    """From the folder."""
    size: int
    """Bytes."""
    changed: int
    """Time of its last change, nanoseconds."""


class Source(Protocol):
    """Where files appear; `FolderSource` says what its methods do."""

    def scan(self) -> list[Seen]: ...  # noqa: D102

    def opened(self, seen: Seen) -> AbstractContextManager[Path | None]: ...  # noqa: D102

    def is_as(self, seen: Seen) -> bool: ...  # noqa: D102

    def remove(self, seen: Seen) -> None: ...  # noqa: D102


class FolderSource:
    """A folder and all below it.

    Args:
        root: the folder, links followed.
        without: folders within it that take no part, such as the one for results.
    """

    def __init__(self, root: Path, without: tuple[Path, ...] = ()) -> None:
        self.root = root
        self._without = frozenset(without)

    def scan(self) -> list[Seen]:
        """All files that may take part, in the order of their names.

        Raises:
            ForbiddenPathError: the folder cannot be read.
        """
        return sorted(self._files(self.root), key=lambda seen: seen.name)

    def _files(self, folder: Path) -> Iterator[Seen]:
        try:
            with os.scandir(folder) as found:
                entries = list(found)
        except FileNotFoundError:
            if folder == self.root:
                raise ForbiddenPathError(
                    f"the watched folder {folder} is not there", "mount it, or correct the path"
                ) from None
            return  # it was removed meanwhile
        except OSError as error:
            raise ForbiddenPathError(
                f"{folder} cannot be read: {error.strerror}", "give this user the right to read it"
            ) from error
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith(".") or path in self._without:
                continue
            with suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    yield from self._files(path)
                elif entry.is_file(follow_symlinks=False) and not takes_no_part(entry.name):
                    facts = entry.stat(follow_symlinks=False)
                    name = path.relative_to(self.root).as_posix()
                    yield Seen(name, facts.st_size, facts.st_mtime_ns)

    @contextmanager
    def opened(self, seen: Seen) -> Generator[Path | None]:
        """A path to the open file; None where it is not the one that was met, or is written to."""
        path = self.root / seen.name
        try:
            with opened_below(self.root, path) as handle:
                if _is_as(handle, seen) and not _is_written_to(handle):
                    with named_handle(handle, path.name) as named:
                        yield named
                    return
        except MissingFileError:
            pass
        yield None

    def is_as(self, seen: Seen) -> bool:
        """Whether the file is still the one that was met."""
        try:
            facts = (self.root / seen.name).lstat()
        except OSError:
            return False
        return (facts.st_size, facts.st_mtime_ns) == (seen.size, seen.changed)

    def remove(self, seen: Seen) -> None:
        """Delete the file that was met; another one that has taken its name stays."""
        path = self.root / seen.name
        away = path.with_name(f"{_OURS}{secrets.token_hex(8)}")
        with disk_errors(path):
            try:
                path.rename(away)
            except FileNotFoundError:
                return
            facts = away.lstat()
            if (facts.st_size, facts.st_mtime_ns) == (seen.size, seen.changed):
                away.unlink()
            else:
                away.rename(path)


def takes_no_part(name: str) -> bool:
    """Whether a file is another program's half-made one, or no picture but what lies beside one."""
    return name.casefold().endswith((*UNDER_WAY, *BESIDE))


def _is_as(handle: int, seen: Seen) -> bool:
    facts = os.fstat(handle)
    return (facts.st_size, facts.st_mtime_ns) == (seen.size, seen.changed)


def _is_written_to(handle: int) -> bool:
    """Whether a program of this machine has the file open for writing, where the system tells."""
    lease = getattr(fcntl, "F_SETLEASE", None)
    if lease is None:
        return False
    try:
        fcntl.fcntl(handle, lease, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:  # not our file, or a file system that does not know
        return False
    fcntl.fcntl(handle, lease, fcntl.F_UNLCK)
    return False


class Settling:
    """Says which files have stopped growing.

    Args:
        seconds: a file that is the same for so long has.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[Seen, float] = {}

    def settled(self, seen: list[Seen]) -> list[Seen]:
        """Those that were met unchanged for long enough; called again and again."""
        now = time.monotonic()
        self._since = {each: self._since.get(each, now) for each in seen}
        return [each for each in seen if self.quiet_seconds(each) >= self._seconds]

    def quiet_seconds(self, seen: Seen) -> float:
        """How long a file has been the same, as far as this process saw."""
        return time.monotonic() - self._since.get(seen, time.monotonic())
