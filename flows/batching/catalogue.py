"""The requests of a batch and what has become of them, on disk: memory stays flat however many.

A private database of SQLite without a name: what does not fit its small cache lies in a file that
the system removes with the process. What must outlive that lies on server and in store.
"""

import json
import sqlite3
from collections.abc import Generator, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, cast, overload

from pydantic import JsonValue

from flows.batching.kinds import alike, kind_of
from flows.batching.requests import Request, seeded
from safelight.provenance.batches import BatchOutcome, Tally, together

AT_ONCE = 500
"""Rows that are read at once."""
_TABLES = """
PRAGMA cache_size = -4096;
CREATE TABLE requests (
    number INTEGER PRIMARY KEY, name TEXT, parameters TEXT, digest TEXT, occurrence INTEGER,
    place TEXT, row INTEGER, spread INTEGER, identity TEXT, alike TEXT, kind TEXT
);
CREATE TABLE outcomes (number INTEGER PRIMARY KEY, outcome TEXT);
CREATE TABLE earlier (identity TEXT PRIMARY KEY, attempt INTEGER, ended TEXT, outcome TEXT);
"""
_COLUMNS = "number, name, parameters, digest, occurrence, place, row, spread"
_COUNTED = """
SELECT json_extract(outcome, '$.state'), COALESCE(json_extract(outcome, '$.reused'), 0),
    COALESCE(json_extract(outcome, '$.error.code'), ''), COUNT(*),
    COALESCE(SUM(json_extract(outcome, '$.seconds')), 0.0),
    COALESCE(SUM(json_extract(outcome, '$.cost_usd')), 0.0)
FROM outcomes GROUP BY 1, 2, 3
"""
Written = tuple[Any, ...]
"""A request as its row has it."""
Entry = tuple[str, int, str, str]
"""Identity of a request, attempt at it, when that ended, and its outcome as JSON."""


class Catalogue(Sequence[Request]):
    """The requests of a batch, in their order.

    Args:
        requests: checked.
    """

    def __init__(self, requests: Iterable[Request] = ()) -> None:
        self._rows = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._rows.executescript(_TABLES)
        self._name: str | None = None
        self.take(_written(request) for request in requests)
        self.outcomes = Outcomes(self._rows)
        """Of the finished ones, by number."""

    def take(self, rows: Iterable[Written]) -> None:
        """Enter requests as `written` gave them."""
        with _wholly(self._rows):
            self._rows.executemany(f"INSERT INTO requests VALUES ({_marks(range(11))})", rows)
            self._rows.execute("CREATE INDEX IF NOT EXISTS named ON requests (identity)")
        self._count, self._first = self._rows.execute(
            "SELECT COUNT(*), COALESCE(MIN(number), 1) FROM requests"
        ).fetchone()

    def written(self, first: int, count: int) -> list[Written]:
        """Rows of requests from a place on, from 0."""
        lowest = self._first + first
        asked = "SELECT * FROM requests WHERE number >= ? AND number < ? ORDER BY number"
        return self._rows.execute(asked, (lowest, lowest + count)).fetchall()

    def seed_by(self, name: str) -> None:
        """Give each request without a seed one that follows from the batch's name."""
        self._name = name

    def __len__(self) -> int:
        """How many there are."""
        return self._count

    @property
    def first(self) -> int:
        """The lowest number; the others follow it without a gap."""
        return self._first

    @overload
    def __getitem__(self, place: int) -> Request: ...
    @overload
    def __getitem__(self, place: slice) -> list[Request]: ...
    def __getitem__(self, place: int | slice) -> Request | list[Request]:
        """By place, from 0."""
        if isinstance(place, slice):
            return self.numbered([self._first + at for at in range(*place.indices(self._count))])
        at = place + self._count if place < 0 else place
        if not 0 <= at < self._count:
            raise IndexError(place)
        return self.numbered([self._first + at])[0]

    def __iter__(self) -> Iterator[Request]:
        """All of them, in their order."""
        asked = f"SELECT {_COLUMNS} FROM requests WHERE number > ? ORDER BY number LIMIT {AT_ONCE}"
        last = self._first - 1
        while rows := self._rows.execute(asked, (last,)).fetchall():
            yield from map(self._request, rows)
            last = rows[-1][0]

    def numbered(self, numbers: Sequence[int]) -> list[Request]:
        """Requests by their numbers, in the order in which they are asked for."""
        found: dict[int, Request] = {}
        for at in range(0, len(numbers), AT_ONCE):
            some = numbers[at : at + AT_ONCE]
            asked = f"SELECT {_COLUMNS} FROM requests WHERE number IN ({_marks(some)})"
            found.update((row[0], self._request(row)) for row in self._rows.execute(asked, some))
        return [found[number] for number in numbers]

    def named(self, identities: Sequence[str]) -> dict[str, int]:
        """Numbers of the requests of these identities, those that the batch has."""
        found: dict[str, int] = {}
        for at in range(0, len(identities), AT_ONCE):
            some = identities[at : at + AT_ONCE]
            asked = f"SELECT identity, number FROM requests WHERE identity IN ({_marks(some)})"
            found.update(self._rows.execute(asked, some))
        return found

    def identities(self) -> Iterator[str]:
        """Of all requests, sorted."""
        asked = "SELECT identity FROM requests ORDER BY identity"
        return (identity for (identity,) in self._rows.execute(asked))

    def kinds(self) -> list[tuple[str, int]]:
        """Kinds of requests that take as long, with the count of each."""
        return self._rows.execute("SELECT kind, COUNT(*) FROM requests GROUP BY kind").fetchall()

    def kind(self, number: int) -> str | None:
        """Of one request; None where there is none of this number."""
        asked = "SELECT kind FROM requests WHERE number = ?"
        found = self._rows.execute(asked, (number,)).fetchone()
        return found[0] if found else None

    def enter_earlier(self, entries: Iterable[Entry]) -> None:
        """Note what attempts at requests came to; the latest attempt at each counts."""
        with _wholly(self._rows):
            self._rows.executemany(
                "INSERT INTO earlier VALUES (?, ?, ?, ?) ON CONFLICT (identity) DO UPDATE SET "
                "attempt = excluded.attempt, ended = excluded.ended, outcome = excluded.outcome "
                "WHERE excluded.attempt >= attempt",
                entries,
            )

    def earlier(self) -> Iterator[tuple[int, str, str, str]]:
        """Number and name of each request that was tried, when that ended, and its outcome."""
        asked = (
            "SELECT r.number, r.name, e.ended, e.outcome FROM requests r "
            "JOIN earlier e ON e.identity = r.identity WHERE r.number > ? "
            f"ORDER BY r.number LIMIT {AT_ONCE}"
        )
        last = self._first - 1
        while rows := self._rows.execute(asked, (last,)).fetchall():
            yield from rows
            last = rows[-1][0]

    def left(self) -> Iterator[tuple[int, int]]:
        """Number, and the attempt that comes next, of what has no outcome; alike ones together."""
        return self._rows.execute(
            "SELECT r.number, COALESCE(e.attempt + 1, 0) FROM requests r "
            "LEFT JOIN earlier e ON e.identity = r.identity "
            "LEFT JOIN outcomes o ON o.number = r.number "
            "WHERE o.number IS NULL ORDER BY r.alike, r.number"
        )

    def _request(self, row: Written) -> Request:
        number, name, parameters, digest, occurrence, place, at, spread = row
        request = Request(
            number,
            name,
            cast("dict[str, JsonValue]", json.loads(parameters)),
            digest,
            occurrence,
            tuple(json.loads(place)),
            at,
            bool(spread),
        )
        return request if self._name is None else seeded(request, self._name)


class Outcomes(MutableMapping[int, BatchOutcome]):
    """What has become of requests, by number, sorted by it."""

    def __init__(self, rows: sqlite3.Connection) -> None:
        self._rows = rows
        self._count = 0

    def __len__(self) -> int:
        """How many have one."""
        return self._count

    def __contains__(self, number: object) -> bool:
        """Whether a request has one."""
        asked = "SELECT 1 FROM outcomes WHERE number = ?"
        return self._rows.execute(asked, (number,)).fetchone() is not None

    def __getitem__(self, number: int) -> BatchOutcome:
        """That of a request."""
        asked = "SELECT outcome FROM outcomes WHERE number = ?"
        found = self._rows.execute(asked, (number,)).fetchone()
        if found is None:
            raise KeyError(number)
        return BatchOutcome.model_validate_json(found[0])

    def __setitem__(self, number: int, outcome: BatchOutcome) -> None:
        """Enter that of a request."""
        self._count += number not in self
        self._rows.execute("INSERT OR REPLACE INTO outcomes VALUES (?, ?)", (number, told(outcome)))

    def __delitem__(self, number: int) -> None:
        """Forget that of a request."""
        done = self._rows.execute("DELETE FROM outcomes WHERE number = ?", (number,))
        self._count -= done.rowcount

    def __iter__(self) -> Iterator[int]:
        """Their numbers."""
        return (number for number, _ in self._read())

    def in_order(self) -> Iterator[BatchOutcome]:
        """All of them, by number."""
        return (BatchOutcome.model_validate_json(outcome) for _, outcome in self._read())

    def among(self, first: int, last: int) -> dict[int, BatchOutcome]:
        """Those from one number to another, both counted in."""
        asked = "SELECT * FROM outcomes WHERE number BETWEEN ? AND ?"
        rows = self._rows.execute(asked, (first, last)).fetchall()
        return {number: BatchOutcome.model_validate_json(outcome) for number, outcome in rows}

    def tally(self) -> Tally:
        """All of them, counted."""
        rows = self._rows.execute(_COUNTED).fetchall()
        tally = Tally()
        for state, reused, code, count, seconds, cost in rows:
            spent = {} if reused else {"seconds": seconds, "cost_usd": cost}
            codes = {} if state == "succeeded" else {code: count}
            some = Tally(states={state: count}, reused=count * reused, codes=codes, **spent)
            tally = together(tally, some)
        return tally

    def enter(self, rows: Iterable[tuple[int, str]]) -> None:
        """Enter outcomes as JSON."""
        with _wholly(self._rows):
            self._rows.executemany("INSERT OR REPLACE INTO outcomes VALUES (?, ?)", rows)
        (self._count,) = self._rows.execute("SELECT COUNT(*) FROM outcomes").fetchone()

    def _read(self) -> Iterator[tuple[int, str]]:
        asked = f"SELECT * FROM outcomes WHERE number > ? ORDER BY number LIMIT {AT_ONCE}"
        last = -1
        while rows := self._rows.execute(asked, (last,)).fetchall():
            yield from rows
            last = rows[-1][0]


def catalogued(requests: Sequence[Request]) -> Catalogue:
    """The requests themselves where they are a catalogue, else one of them."""
    return requests if isinstance(requests, Catalogue) else Catalogue(requests)


def told(outcome: BatchOutcome) -> str:
    """An outcome as JSON, short."""
    return outcome.model_dump_json(exclude_defaults=True)


def _written(request: Request) -> Written:
    return (
        request.number,
        request.where,
        json.dumps(request.parameters),
        request.digest,
        request.occurrence,
        json.dumps(request.place),
        request.row,
        request.spread,
        request.identity,
        alike(request.parameters),
        kind_of(request.parameters),
    )


@contextmanager
def _wholly(rows: sqlite3.Connection) -> Generator[None]:
    rows.execute("BEGIN")
    try:
        yield
    except BaseException:
        rows.execute("ROLLBACK")
        raise
    rows.execute("COMMIT")


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
