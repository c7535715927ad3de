"""Finds what may go: everything old that nothing names any more.

What names files: manifests that are kept, stars, characters, LoRAs, reports of batches, ledgers of
watches, work at providers, and runs that have not ended. Result records of the cache name files
too, but only for as long as a run may still find them, see `removing`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from safelight.provenance.manifest import BY_ARTIFACT, MANIFESTS
from safelight.store.aging import Kept, everything, plain
from safelight.store.backend import Backend
from safelight.store.ratings import PREFIX as RATINGS
from safelight.store.results import PREFIX as RESULTS
from safelight.store.stars import PREFIX as STARS

Kind = Literal[
    "results", "uploads", "manifests", "index", "cache", "frames", "checkpoints", "unfinished"
]
FOLDERS = ("outputs/", "uploads/", "characters/", "loras/", "datasets/", "synthetic/", "cache/")
"""Everything that is looked at; nothing else is ever touched."""
GROUPS: dict[str, Kind] = {"cache/frames/": "frames", "cache/training/": "checkpoints"}
"""Parts of stages that have not finished: as old as the youngest of one stage."""
CACHES = (RESULTS, "cache/zips/", "cache/thumbnails/", "cache/previews/", "cache/boards/")
"""What is made again when it is missing. Work at providers stays: it may have been paid for."""
RECORDS = (".json", ".jsonl")
LARGEST = 64 * 2**20
"""Bytes of a record that is read for names."""
RETIRED = "cache/retired.json"
"""sha256 of files whose result records went, and when; it names nothing that is needed."""
DAY = 24 * 3600.0
_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_ARTIFACT = re.compile(r"(outputs|uploads)/[0-9a-f]{2}/([0-9a-f]{64})\.\w+")
_MANIFEST = re.compile(rf"{MANIFESTS}[A-Za-z0-9._-]+\.json")


@dataclass(frozen=True)
class Limits:
    """How old what must be to go."""

    days: float
    """What nothing names goes when it was written this long ago."""
    runs_days: float | None = None
    """Manifests of runs older than this count no more, unless a file of theirs is starred; None
    keeps all."""


@dataclass
class Plan:
    """What may go."""

    kept: list[tuple[Kind, Kept]] = field(default_factory=list[tuple[Kind, Kept]])
    """In the order in which it has to go."""
    named_by_cache: set[str] = field(default_factory=set[str])
    """sha256 of what the result records that go name, or those that stay."""


def gather(backend: Backend, limits: Limits, in_use: Iterable[str], now: float) -> Plan:
    """Look at everything; nothing is changed.

    Args:
        backend: of the store.
        limits: what counts as old.
        in_use: sha256 of what runs that have not ended were given.
        now: in seconds of the epoch.
    """
    found = list(everything(plain(backend), FOLDERS))
    old = now - limits.days * DAY
    starred = {_stem(each.key) for each in found if each.key.startswith(STARS)}
    plan = Plan()
    named = {*starred, *in_use}
    leaving: list[Kept] = []
    for each in found:
        digests = _named_in(backend, each)
        if _MANIFEST.fullmatch(each.key):
            if _goes(each, limits, now) and not digests & starred:
                leaving.append(each)
                continue
            named |= digests
        elif each.key.startswith(RESULTS):
            plan.named_by_cache |= digests
        elif not each.key.startswith((BY_ARTIFACT, RETIRED, *CACHES)):
            named |= digests
    plan.kept.extend(("manifests", each) for each in leaving)
    caches = (each for each in found if each.key.startswith(CACHES) and each.changed < old)
    plan.kept.extend(("cache", each) for each in caches)
    plan.kept.extend(_abandoned(found, old))
    gone = set[str]()
    for each in found:
        artifact = _ARTIFACT.fullmatch(each.key)
        if artifact and artifact[2] not in named and each.changed < old:
            plan.kept.append(("results" if artifact[1] == "outputs" else "uploads", each))
            gone.add(artifact[2])
    left = {each.key for each in leaving}
    plan.kept.extend(("index", each) for each in _index(backend, found, gone, left))
    return plan


def _goes(manifest: Kept, limits: Limits, now: float) -> bool:
    return limits.runs_days is not None and manifest.changed < now - limits.runs_days * DAY


def _named_in(backend: Backend, kept: Kept) -> set[str]:
    """sha256 that a record names; of a star that of its own name is enough."""
    if not kept.key.endswith(RECORDS) and not kept.key.startswith(RESULTS):
        inside = kept.key.partition("/")[0] not in ("outputs", "uploads", "cache")
        return {_stem(kept.key)} if inside else set()
    if kept.bytes > LARGEST or kept.key.startswith(BY_ARTIFACT) or _ARTIFACT.fullmatch(kept.key):
        return set()
    from safelight.errors import MissingFileError

    try:
        content = backend.read(kept.key)
    except MissingFileError:  # it went meanwhile
        return set()
    return {digest.decode() for digest in _DIGEST.findall(content)}


def _abandoned(found: list[Kept], old: float) -> Iterator[tuple[Kind, Kept]]:
    stages: dict[tuple[str, str], list[Kept]] = {}
    for each in found:
        for prefix in GROUPS:
            if each.key.startswith(prefix):
                stage = each.key.removeprefix(prefix).partition("/")[0]
                stages.setdefault((prefix, stage), []).append(each)
    for (prefix, _), parts in stages.items():
        if max(part.changed for part in parts) < old:
            # the last first: who dies half way leaves a beginning, which is what is gone on with
            for part in sorted(parts, key=lambda part: part.key, reverse=True):
                yield GROUPS[prefix], part


def _index(backend: Backend, found: list[Kept], gone: set[str], left: set[str]) -> Iterator[Kept]:
    """Records that lead from files that go, or rate them, or lead to manifests that go."""
    from safelight.errors import MissingFileError

    marks = [key.encode() for key in left]
    for each in found:
        if each.key.startswith(RATINGS) and _stem(each.key) in gone:
            yield each
        if not each.key.startswith(BY_ARTIFACT):
            continue
        if _stem(each.key) in gone:
            yield each
        elif marks:
            try:
                content = backend.read(each.key)
            except MissingFileError:
                continue
            if any(mark in content for mark in marks):
                yield each


def _stem(key: str) -> str:
    return key.rpartition("/")[2].partition(".")[0]
