"""Removes what may go, so that a kill at any moment costs nothing.

A run finds old files by the parameters that it was given, which are asked for, or by a result
record of the cache. So a file that such a record named goes only when no run is under way that
began while the record was there: until then the file is written down as retired, and goes later.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from safelight.audit.log import record
from safelight.errors import MissingFileError
from safelight.retention.gathering import DAY, RETIRED, Limits, gather
from safelight.store.aging import give_up, half_sent, plain, still_as_old
from safelight.store.backend import Backend
from safelight.store.s3 import Bucket
from safelight.store.store import current_store


@dataclass(frozen=True)
class Going:
    """Runs that have not ended."""

    given: frozenset[str] = frozenset()
    """sha256 of all that their parameters name."""
    since: float | None = None
    """When the first of those that run began, in seconds of the epoch; None where none runs."""


class Removed(BaseModel):
    """What went, or may go."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    deleted: bool
    """Whether it went; else it was only looked at."""
    counts: dict[str, int]
    """Files by kind."""
    bytes: dict[str, int]
    """Their bytes by kind."""
    waiting: int
    """Old files that a run which is under way may still read; they go another time."""


@dataclass
class _Tally:
    counts: Counter[str] = field(default_factory=Counter[str])
    bytes: Counter[str] = field(default_factory=Counter[str])

    def add(self, kind: str, size: int) -> None:
        self.counts[kind] += 1
        self.bytes[kind] += size


def collect(
    limits: Limits,
    going: Callable[[], Going],
    *,
    delete: bool = False,
    clock: Callable[[], float] = time.time,
) -> Removed:
    """Find what may go from the current store, and remove it where that is wanted.

    Args:
        limits: how old what must be.
        going: asks for the runs that have not ended; asked once more before files go.
        delete: else nothing is changed.
        clock: seconds of the epoch.
    """
    store = current_store()
    backend, now = store.backend, clock()
    before = going()
    plan = gather(backend, limits, before.given, now)
    tally, waiting = _Tally(), 0
    records = [(kind, kept) for kind, kept in plan.kept if kind not in ("results", "uploads")]
    files = [(kind, kept) for kind, kept in plan.kept if kind in ("results", "uploads")]
    digests = {kept.key: kept.key.rpartition("/")[2].partition(".")[0] for _, kept in files}
    retired = _retired(backend)
    leaving = {digest: now for digest in digests.values() if digest in plan.named_by_cache}
    if delete and leaving:
        # said before the records go: who dies in between does not forget that they were there
        retired |= leaving
        _retire(backend, retired)
    for kind, kept in records:
        if kind == "index" or not delete or still_as_old(plain(backend), kept):
            tally.add(kind, kept.bytes)
            if delete:
                backend.delete(kept.key)
    after = going() if delete else before
    for kind, kept in files:
        digest = digests[kept.key]
        gone_at = (retired if delete else leaving | retired).get(digest)
        if digest in after.given or (
            gone_at is not None and after.since is not None and after.since <= gone_at
        ):
            waiting += 1
        elif not delete or still_as_old(plain(backend), kept):
            tally.add(kind, kept.bytes)
            if delete:
                backend.delete(kept.key)
                retired.pop(digest, None)
    if delete and (retired or _retired(backend)):
        _retire(backend, _still_there(backend, retired))
    for _ in _unfinished(backend, now - limits.days * DAY, delete=delete):
        tally.add("unfinished", 0)
    if delete and tally.counts:
        record("store.tidied", "", {**tally.counts})
    return Removed(
        deleted=delete, counts=dict(tally.counts), bytes=dict(tally.bytes), waiting=waiting
    )


def _retired(backend: Backend) -> dict[str, float]:
    try:
        told = json.loads(backend.read(RETIRED))
    except (MissingFileError, ValueError):
        return {}
    return {str(k): float(v) for k, v in told.items()} if isinstance(told, dict) else {}


def _retire(backend: Backend, retired: dict[str, float]) -> None:
    backend.write(RETIRED, json.dumps(retired).encode(), "application/json")


def _still_there(backend: Backend, retired: dict[str, float]) -> dict[str, float]:
    stored = {
        key.rpartition("/")[2].partition(".")[0]
        for folder in ("outputs/", "uploads/")
        for key in backend.list(folder)
    }
    return {digest: when for digest, when in retired.items() if digest in stored}


def _unfinished(backend: Backend, old: float, *, delete: bool) -> Iterable[str]:
    bucket = plain(backend)
    if not isinstance(bucket, Bucket):
        return ()
    found = [each for each in half_sent(bucket) if each.begun < old]
    if delete:
        for each in found:
            give_up(bucket, each)
    return [each.name for each in found]


def shown(removed: Removed) -> Sequence[tuple[str, int, int]]:
    """Kind, files and bytes, the largest first."""
    rows = [(kind, n, removed.bytes.get(kind, 0)) for kind, n in removed.counts.items()]
    return sorted(rows, key=lambda row: -row[2])
