"""Log files by service and day: `logs/{service}/YYYY-MM-DD.log` of the volume.

Many processes of one service write to the same file, each line at once. What is older than a week
is compressed, what is older than a month removed, by whichever process writes the first line of a
day.
"""

import gzip
import logging
import os
import re
import shutil
import sys
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from safelight.private import make_folder

FOLDER = "logs"
PLAIN_DAYS = 7
"""Files of so many days stay as they are, today's included."""
KEPT_DAYS = 30
"""Compressed ones are kept for as long as this."""
_NAME = re.compile(r"(\d{4}-\d{2}-\d{2})\.log(\.gz)?")


class DailyFile(logging.Handler):
    """Appends to the file of the day.

    Args:
        folder: of one service.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._day: date | None = None
        self._handle = -1
        self._silent = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line of a record; a disk that refuses is said once, and costs the line."""
        try:
            line = self.format(record) + "\n"
            self._open(datetime.fromtimestamp(record.created, UTC).date())
            os.write(self._handle, line.encode("utf-8", "backslashreplace"))
            self._silent = False
        except OSError as error:
            if not self._silent:
                sys.stderr.write(f"no log is written to {self._folder.name}: {error.strerror}\n")
            self._silent = True
        except Exception:  # noqa: BLE001  # of a record that cannot be formatted: logging says it
            self.handleError(record)

    def close(self) -> None:
        """Let the file go."""
        self.acquire()
        try:
            if self._handle >= 0:
                os.close(self._handle)
            self._handle, self._day = -1, None
        finally:
            self.release()
        super().close()

    def _open(self, day: date) -> None:
        if self._day == day:
            return
        make_folder(self._folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        handle = os.open(self._folder / f"{day.isoformat()}.log", flags, 0o600)
        if self._handle >= 0:
            os.close(self._handle)
        self._handle, self._day = handle, day
        tidy(self._folder, day)


def tidy(folder: Path, today: date) -> None:
    """Compress and remove what is old enough; several processes may do so at once.

    Args:
        folder: of one service.
        today: by which ages are counted.
    """
    for path in sorted(folder.iterdir()):
        named = _NAME.fullmatch(path.name)
        if named is None:
            continue
        with suppress(ValueError, OSError):  # no such day; another process was first
            age = today - date.fromisoformat(named[1])
            if age >= timedelta(days=KEPT_DAYS):
                path.unlink()
            elif age >= timedelta(days=PLAIN_DAYS) and not named[2]:
                _compress(path)


def _compress(path: Path) -> None:
    half = path.with_name(f".{path.name}.{os.getpid()}")
    whole = path.with_name(f"{path.name}.gz")
    try:
        handle = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with path.open("rb") as source, os.fdopen(handle, "wb") as target:
            with gzip.GzipFile(path.name, "wb", fileobj=target, mtime=0) as packed:
                shutil.copyfileobj(source, packed)
        half.replace(whole)
        path.unlink()
    finally:
        half.unlink(missing_ok=True)
