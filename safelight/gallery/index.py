"""The index of the gallery: what manifests say, in a file of SQLite that answers in a blink.

It holds nothing that the store does not: it is filled from manifests as they come, and whoever
deletes the file loses nothing but the time to fill it again.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from safelight.errors import MissingFileError, PipelineError
from safelight.gallery.rows import (
    LAYOUT,
    SHOWN,
    Filed,
    Opinions,
    Ran,
    StageTime,
    enter,
    filed_of,
)
from safelight.provenance.manifest import BY_ARTIFACT, MANIFESTS, Manifest, load_manifest
from safelight.store.ratings import ratings
from safelight.store.stars import kept
from safelight.store.store import Store, current_store
from safelight.weights.database import Database, database_file

FOLDER = "gallery"
"""Of the volume, for the files of all machines."""
FRESH_SECONDS = 2.0
"""Between two looks into the store."""
AT_ONCE = 500
"""Manifests that are read and written together."""
AGAIN = 200
"""Latest runs without success whose manifests are read anew: they may have been tried again."""


class Index:
    """All runs and their files; several processes and threads may use it at once.

    Args:
        store: whose manifests it reads.
        file: of the database.
    """

    def __init__(self, store: Store, file: Path) -> None:
        self.database = Database(file, LAYOUT)
        self._store = store
        self._lock = threading.Lock()
        self._looked = -FRESH_SECONDS

    def refresh(self, *, wait: bool = True) -> int:
        """Read the manifests that are new; how many there were.

        Args:
            wait: for a look that another thread takes at the moment; else that one serves.
        """
        if not self._lock.acquire(blocking=wait):
            return 0
        try:
            if time.monotonic() - self._looked < FRESH_SECONDS:
                return 0
            added = self._look()
            self._looked = time.monotonic()
            return added
        finally:
            self._lock.release()

    def is_empty(self) -> bool:
        """Whether nothing has been read yet."""
        return not self.database.read(lambda c: c.execute("SELECT 1 FROM runs LIMIT 1").fetchone())

    def rebuild(self) -> int:
        """Forget everything and read all manifests again; how many there are."""

        def emptied(connection: sqlite3.Connection) -> None:
            for table in LAYOUT.tables:
                connection.execute(f"DELETE FROM {table}")

        self.database.write(emptied)
        with self._lock:
            return self._look()

    def forget(self, sha256: str) -> None:
        """Take a file out."""
        self.database.write(lambda c: c.execute("DELETE FROM files WHERE sha256 = ?", (sha256,)))

    def mark(self, sha256: str, *, star: bool) -> None:
        """Say that a file is kept, or no longer."""
        self.database.write(
            lambda c: c.execute("UPDATE files SET star = ? WHERE sha256 = ?", (star, sha256))
        )

    def rate(self, sha256: str, rating: int) -> None:
        """Say how a file is rated."""
        self.database.write(
            lambda c: c.execute("UPDATE files SET rating = ? WHERE sha256 = ?", (rating, sha256))
        )

    def find(self, sha256: str) -> Filed:
        """One file.

        Raises:
            MissingFileError: no run made it, or it was deleted.
        """
        found = self.select("sha256 = ?", (sha256,), 1)
        if not found:
            raise MissingFileError(
                f"no run of this store made a file {sha256[:12]}, or it was deleted",
                "look for it in the gallery",
            )
        return found[0]

    def select(
        self, where: str, values: Sequence[object], limit: int, *, oldest_first: bool = False
    ) -> list[Filed]:
        """Files that fulfil a condition of ours, the newest first unless told otherwise."""
        down = "" if oldest_first else "DESC"
        rows = self.database.read(
            lambda c: c.execute(
                f"SELECT {SHOWN} FROM files WHERE {where} "
                f"ORDER BY at {down}, sha256 {down} LIMIT {limit}",
                tuple(values),
            ).fetchall()
        )
        return [filed_of(row) for row in rows]

    def stacked(
        self, where: str, values: Sequence[object], limit: int, after: Sequence[object] = ()
    ) -> list[tuple[Filed, int]]:
        """The newest file of each stack, with how many of the stack fulfil a condition of ours.

        Args:
            where: the condition.
            values: of its places.
            limit: at most so many stacks.
            after: time and sha256 of a file; only stacks behind it.
        """
        behind = "WHERE (at, sha256) < (?, ?)" if after else ""
        rows = self.database.read(
            lambda c: c.execute(
                f"SELECT {SHOWN}, many FROM (SELECT *, count(*) OVER stacks AS many, "
                "row_number() OVER (stacks ORDER BY at DESC, sha256 DESC) AS nth "
                f"FROM files WHERE {where} WINDOW stacks AS (PARTITION BY stack)) "
                f"{behind or 'WHERE 1'} AND nth = 1 ORDER BY at DESC, sha256 DESC LIMIT {limit}",
                (*values, *after),
            ).fetchall()
        )
        return [(filed_of(row[:-1]), row[-1]) for row in rows]

    def count(self, where: str, values: Sequence[object]) -> int:
        """How many files fulfil a condition of ours."""
        asked = f"SELECT count(*) FROM files WHERE {where}"
        return self.database.read(lambda c: c.execute(asked, tuple(values)).fetchone()[0])

    def of_run(self, run: str) -> list[Filed]:
        """What a run made, in the order of its manifest."""
        rows = self.database.read(
            lambda c: c.execute(
                f"SELECT {SHOWN} FROM files WHERE run = ? ORDER BY result DESC, place", (run,)
            ).fetchall()
        )
        return [filed_of(row) for row in rows]

    def first_of_runs(self, runs: Sequence[str]) -> dict[str, Filed]:
        """The first result of each of some runs."""
        marks = ", ".join("?" for _ in runs)
        rows = self.database.read(
            lambda c: c.execute(
                f"SELECT {SHOWN} FROM files WHERE run IN ({marks}) ORDER BY result, place DESC",
                tuple(runs),
            ).fetchall()
        )
        return {filed.run: filed for filed in map(filed_of, rows)}

    def ran(self, runs: Sequence[str]) -> dict[str, Ran]:
        """Some runs by their ids; those that left no manifest are left out."""
        found: dict[str, Ran] = {}
        for at in range(0, len(runs), AT_ONCE):  # SQLite takes a limited number of values
            some = tuple(runs[at : at + AT_ONCE])
            marks = ", ".join("?" for _ in some)
            found |= {each.id: each for each in self._ran(f"id IN ({marks})", some, len(some))}
        return found

    def ran_now(self, runs: Sequence[str], success: bool | None = None) -> dict[str, Ran]:
        """The same; of those that have not been read yet, the manifests are, and no others.

        Args:
            runs: their ids.
            success: how all of them have ended; whatever is known to have ended otherwise was
                tried again since, and is read again too.
        """
        found = self.ran(runs)
        old = {run for run, one in found.items() if success not in (None, one.success)}
        exists = self._store.backend.exists
        keys = [f"{MANIFESTS}{run}.json" for run in runs if run not in found or run in old]
        read = [*self._manifests(key for key in keys if exists(key))]
        if not read:
            return found
        opinions = self._opinions()
        self.database.write(lambda c: enter(c, read, opinions, exists))
        return found | self.ran([manifest.flow_run_id for manifest in read])

    def alike(self, flow: str, limit: int = 200) -> list[Ran]:
        """Earlier runs of a flow that worked for all they made, the latest first."""
        return self._ran("flow = ? AND success = 1 AND cached = 0", (flow,), limit)

    def _ran(self, where: str, values: Sequence[object], limit: int) -> list[Ran]:
        rows = self.database.read(
            lambda c: c.execute(
                "SELECT id, flow, at, seconds, cost, success, cached, code, parameters, stages "
                f"FROM runs WHERE {where} ORDER BY at DESC LIMIT {limit}",
                tuple(values),
            ).fetchall()
        )
        return [
            Ran(
                *row[:5],
                success=bool(row[5]),
                cached=bool(row[6]),
                code=row[7],
                parameters=json.loads(row[8]),
                stages=tuple(StageTime(*stage) for stage in json.loads(row[9])),
            )
            for row in rows
        ]

    def _look(self) -> int:
        """Read what the store has and the index has not."""
        names = {
            key.removeprefix(MANIFESTS).removesuffix(".json"): key
            for key in self._store.backend.list(MANIFESTS)
            if not key.startswith(BY_ARTIFACT)
        }
        known, again = self.database.read(_known)
        gone = [run for run in known if run not in names]
        new = [key for run, key in names.items() if run not in known or run in again]
        opinions = self._opinions()
        there: frozenset[str] | None = None
        if len(new) > AT_ONCE:  # then one list is cheaper than a question for each file
            there = frozenset(self._store.backend.list("outputs/"))
        for at in range(0, len(new), AT_ONCE):
            read = [*self._manifests(new[at : at + AT_ONCE])]
            exists = self._store.backend.exists if there is None else there.__contains__
            self.database.write(lambda c, r=read, e=exists: enter(c, r, opinions, e))
        if gone:
            self.database.write(lambda c: _drop(c, gone))
        return len(new)

    def _opinions(self) -> Opinions:
        return Opinions(kept(self._store), ratings(self._store))

    def _manifests(self, keys: Iterable[str]) -> Iterator[Manifest]:
        for key in keys:
            try:
                manifest = load_manifest(key, self._store)
            except PipelineError:  # damaged, or of another version: nothing to show
                self.database.write(
                    lambda c, k=key: c.execute("INSERT OR IGNORE INTO unreadable VALUES (?)", (k,))
                )
                continue
            yield manifest


def _known(connection: sqlite3.Connection) -> tuple[set[str], set[str]]:
    """All runs, and the latest of those without success."""
    runs = {row[0] for row in connection.execute("SELECT id FROM runs")}
    asked = "SELECT key FROM unreadable"
    broken = {row[0][len(MANIFESTS) : -5] for row in connection.execute(asked)}
    latest = f"SELECT id FROM runs WHERE success = 0 ORDER BY at DESC LIMIT {AGAIN}"
    return runs | broken, {row[0] for row in connection.execute(latest)}


def _drop(connection: sqlite3.Connection, runs: Iterable[str]) -> None:
    for run in runs:
        connection.execute("DELETE FROM runs WHERE id = ?", (run,))
        connection.execute("DELETE FROM files WHERE run = ?", (run,))
        connection.execute("DELETE FROM unreadable WHERE key = ?", (f"{MANIFESTS}{run}.json",))


@lru_cache(maxsize=2)
def _index_of(store: Store, file: Path) -> Index:
    return Index(store, file)


def gallery() -> Index:
    """The index over the current store, of this machine."""
    return _index_of(current_store(), database_file(FOLDER))
