"""Files of SQLite, one for each machine, which several processes write to: that of the registry,
and those of others who keep what can be found again.

What stands in one is found again by a scan, so a file that is damaged is set aside and made anew.
"""

import hashlib
import logging
import os
import re
import socket
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from safelight.errors import (
    DiskFullError,
    ForbiddenPathError,
    PipelineError,
    StoreUnavailableError,
)
from safelight.private import make_folder
from safelight.settings import settings

T = TypeVar("T")
LOG = logging.getLogger(__name__)
VERSION = 1
BUSY_SECONDS = 60.0
"""A process that writes is waited for this long."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FORBIDDEN = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
_BESIDE = ("-wal", "-shm")
_MACHINE = Path("/etc/machine-id")
_SCHEMA = """
CREATE TABLE models (
    path TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    stem TEXT NOT NULL,
    model_type TEXT NOT NULL,
    size INTEGER NOT NULL,
    stamp TEXT NOT NULL,
    sha256 TEXT,
    discovered_at TEXT NOT NULL,
    facts TEXT NOT NULL,
    given TEXT
) WITHOUT ROWID;
CREATE INDEX by_name ON models (name, model_type);
CREATE INDEX by_stem ON models (stem);
CREATE INDEX by_sha256 ON models (sha256);
CREATE TABLE acknowledgements (
    number INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    sha256 TEXT,
    code TEXT NOT NULL,
    who TEXT NOT NULL,
    at TEXT NOT NULL
);
"""


TABLES = ("models", "acknowledgements")


@dataclass(frozen=True)
class Layout:
    """What stands in a file."""

    version: int
    """Raised with the tables: a file of another version is made anew."""
    tables: tuple[str, ...]
    """Their names, of this version and of earlier ones."""
    schema: str
    """Statements that make them."""


MODELS = Layout(VERSION, TABLES, _SCHEMA)
"""Of the registry."""


def database_file(folder: str = "registry") -> Path:
    """The file of this machine, under the volume that several may share."""
    host = re.sub(r"[^A-Za-z0-9-]", "", socket.gethostname())[:40] or "machine"
    try:
        told = _MACHINE.read_bytes()
    except OSError:
        told = b""
    return settings().volume_root / folder / f"{host}-{hashlib.sha256(told).hexdigest()[:8]}.db"


class Database:
    """Runs functions on connections, each in one transaction."""

    def __init__(self, file: Path, layout: Layout = MODELS) -> None:
        self.file = file
        self._layout = layout

    def read(self, ask: Callable[[sqlite3.Connection], T]) -> T:
        """What a function finds; it may run twice.

        Raises:
            PipelineError: the file cannot be read or made.
        """
        return self._tried("BEGIN", ask)

    def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Change something, alone; it may run twice, but only one of the changes is kept.

        Raises:
            PipelineError: the file cannot be written.
        """
        return self._tried("BEGIN IMMEDIATE", change)

    def _tried(self, begin: str, do: Callable[[sqlite3.Connection], T]) -> T:
        for last in (False, True):
            try:
                return self._done(begin, do)
            except sqlite3.DatabaseError as error:
                if last or _code(error) not in _DAMAGED:
                    raise self._translated(error) from error
                self._set_aside(error)
        raise AssertionError("the last try returns or raises")

    def _done(self, begin: str, do: Callable[[sqlite3.Connection], T]) -> T:
        with closing(self._opened()) as connection:
            connection.execute(begin)
            try:
                found = do(connection)
            except BaseException:
                connection.rollback()
                raise
            connection.commit()
            return found

    def _opened(self) -> sqlite3.Connection:
        try:
            make_folder(self.file.parent)
        except OSError as error:
            raise ForbiddenPathError(
                f"{self.file.parent}: {error.strerror}",
                "give this user read and write rights on VOLUME_ROOT",
            ) from error
        connection = sqlite3.connect(self.file, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            if connection.execute("PRAGMA user_version").fetchone()[0] != self._layout.version:
                self._make(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA secure_delete = ON")  # what is forgotten leaves no bytes
        except BaseException:
            connection.close()
            raise
        return connection

    def _make(self, connection: sqlite3.Connection) -> None:
        """The tables, once; a file of another version is made anew, since a scan fills it."""
        layout = self._layout
        with FileLock(f"{self.file}.lock"):
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found == layout.version:
                return
            connection.execute("PRAGMA journal_mode = WAL")
            drop = " ".join(f"DROP TABLE IF EXISTS {name};" for name in layout.tables)
            connection.executescript(
                f"BEGIN IMMEDIATE; {drop} {layout.schema} "
                f"PRAGMA user_version = {layout.version}; COMMIT;"
            )

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        """Move a damaged file away, unless another process has done so."""
        with FileLock(f"{self.file}.lock"):
            if self._is_whole():
                return
            aside = self.file.with_name(f"{self.file.name}.damaged-{time.time_ns()}")
            LOG.warning("%s is damaged (%s): moved to %s", self.file, error, aside.name)
            for end in _BESIDE:
                Path(f"{self.file}{end}").unlink(missing_ok=True)
            os.replace(self.file, aside)

    def _is_whole(self) -> bool:
        try:
            with closing(sqlite3.connect(self.file, timeout=BUSY_SECONDS)) as connection:
                return connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
        except sqlite3.DatabaseError:
            return False

    def _translated(self, error: sqlite3.DatabaseError) -> PipelineError:
        code = _code(error)
        if code == sqlite3.SQLITE_FULL:
            return DiskFullError(
                f"no room left to write {self.file}", "free space on the disk of VOLUME_ROOT"
            )
        if code in _FORBIDDEN:
            return ForbiddenPathError(
                f"{self.file}: {error}", "give this user read and write rights on VOLUME_ROOT"
            )
        return StoreUnavailableError(
            f"{self.file}: {error}", "look at the disk that holds VOLUME_ROOT, then try again"
        )


def _code(error: sqlite3.DatabaseError) -> int:
    """Without the details that SQLite adds in the upper bytes."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
