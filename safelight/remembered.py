"""Small facts that take time to find out, kept in memory and in a file of the volume's cache."""

import json
import os
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import cast

from safelight.private import make_folder
from safelight.settings import settings

WRITTEN_SECONDS = 5.0
"""How long facts that are found out together may wait to be written."""


class Remembered:
    """Facts by name; a file that is gone, damaged or read-only costs time, not correctness."""

    def __init__(self, file_name: str) -> None:
        """Facts of one kind.

        Args:
            file_name: in `cache` of the volume root; read when a fact is first asked for.
        """
        self._file_name = file_name
        self._lock = threading.Lock()
        self._known: dict[str, object] = {}
        self._waiting: dict[str, object] | None = None
        self._written = 0.0

    @contextmanager
    def together(self) -> Generator[None]:
        """Write the facts that are found out in here some at a time: each write is of all."""
        with self._lock:
            if self._waiting is not None:  # somebody does so already
                nested = True
            else:
                nested, self._waiting, self._written = False, {}, time.monotonic()
        try:
            yield
        finally:
            if not nested:
                with self._lock:
                    waiting, self._waiting = self._waiting or {}, None
                    if waiting:
                        self._write(waiting)

    def get(self, name: str) -> object:
        """What was kept under a name, by this process or by an earlier one; None is nothing."""
        with self._lock:
            if name not in self._known:
                self._known = {**self._kept(), **self._known}
            return self._known.get(name)

    def put(self, name: str, fact: object) -> None:
        """Keep a fact, for other processes too.

        Args:
            name: everything that the fact depends on.
            fact: what JSON can say.
        """
        with self._lock:
            self._known[name] = fact
            if self._waiting is None:
                self._write({name: fact})
                return
            self._waiting[name] = fact
            if time.monotonic() - self._written > WRITTEN_SECONDS:
                self._write(self._waiting)
                self._waiting, self._written = {}, time.monotonic()

    def _write(self, facts: dict[str, object]) -> None:
        file = settings().volume_root / "cache" / self._file_name
        try:
            make_folder(file.parent)
            handle, part_name = tempfile.mkstemp(prefix=".part-", dir=file.parent)
            with os.fdopen(handle, "w") as part:
                json.dump({**self._kept(), **facts}, part, indent=0)
            os.replace(part_name, file)
        except OSError:
            return

    def _kept(self) -> dict[str, object]:
        file = settings().volume_root / "cache" / self._file_name
        try:
            known = json.loads(file.read_text())
        except (OSError, ValueError):
            return {}
        return cast("dict[str, object]", known) if isinstance(known, dict) else {}
