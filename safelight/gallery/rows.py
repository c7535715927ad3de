"""Rows of the index: a manifest as the tables hold it, and what is read from them."""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from pydantic import JsonValue

from safelight.provenance.manifest import Manifest
from safelight.store.artifact import ArtifactRef
from safelight.store.store import key_of
from safelight.weights.database import Layout

_SCHEMA = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    flow TEXT NOT NULL,
    at REAL NOT NULL,
    seconds REAL NOT NULL,
    cost REAL NOT NULL,
    quality TEXT,
    device TEXT NOT NULL,
    success INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    code TEXT,
    parameters TEXT NOT NULL,
    stages TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX runs_by_flow ON runs (flow, success, at);
CREATE TABLE files (
    sha256 TEXT PRIMARY KEY,
    run TEXT NOT NULL,
    place INTEGER NOT NULL,
    at REAL NOT NULL,
    flow TEXT NOT NULL,
    result INTEGER NOT NULL,
    stage TEXT NOT NULL,
    kind TEXT NOT NULL,
    width INTEGER,
    height INTEGER,
    bytes INTEGER NOT NULL,
    state TEXT NOT NULL,
    seed TEXT NOT NULL,
    model TEXT NOT NULL,
    loras TEXT NOT NULL,
    character TEXT NOT NULL,
    consent_by TEXT NOT NULL,
    prompt TEXT NOT NULL,
    words TEXT NOT NULL,
    star INTEGER NOT NULL,
    rating INTEGER NOT NULL,
    stack TEXT NOT NULL,
    ref TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX files_by_time ON files (result, at DESC, sha256 DESC);
CREATE INDEX files_by_run ON files (run);
CREATE INDEX files_by_stack ON files (stack, result, at DESC, sha256 DESC);
CREATE TABLE unreadable (key TEXT PRIMARY KEY) WITHOUT ROWID;
"""
LAYOUT = Layout(3, ("runs", "files", "unreadable"), _SCHEMA)
_FILE_COLUMNS = 23


@dataclass(frozen=True)
class Filed:
    """A file as the gallery shows it."""

    sha256: str
    run: str
    at: float
    flow: str
    result: bool
    stage: str
    kind: str
    width: int | None
    height: int | None
    bytes: int
    state: str
    seed: str
    model: str
    prompt: str
    star: bool
    rating: int
    """1 to 5; -1 is rejected, 0 not rated."""
    stack: str
    """The same for variations of one prompt."""
    ref: ArtifactRef
    """Where the store has it."""


@dataclass(frozen=True)
class StageTime:
    """What a stage of an earlier run took."""

    name: str
    seconds: float
    status: str


@dataclass(frozen=True)
class Ran:
    """A run as the index keeps it."""

    id: str
    flow: str
    at: float
    seconds: float
    cost: float
    success: bool
    cached: bool
    code: str | None
    parameters: dict[str, JsonValue]
    stages: tuple[StageTime, ...]


@dataclass(frozen=True)
class Opinions:
    """What people think of files."""

    stars: frozenset[str]
    """sha256 of those that are kept."""
    ratings: Mapping[str, int]
    """-1 or 1 to 5, by sha256."""


SHOWN = (
    "sha256, run, at, flow, result, stage, kind, width, height, bytes, state, seed, model, "
    "prompt, star, rating, stack, ref"
)


def filed_of(row: Sequence[object]) -> Filed:
    """The file of a row of `SHOWN`."""
    values = list(row)
    values[4], values[14] = bool(values[4]), bool(values[14])
    values[17] = ArtifactRef.model_validate_json(cast(str, values[17]))
    return Filed(*values)  # pyright: ignore[reportArgumentType]


def enter(
    connection: sqlite3.Connection,
    manifests: Iterable[Manifest],
    opinions: Opinions,
    exists: Callable[[str], bool],
) -> None:
    """Put runs and those of their files that are still stored into the tables.

    Args:
        connection: within a transaction.
        manifests: of the runs.
        opinions: which files are kept, and how they are rated.
        exists: whether something is stored under a key.
    """
    marks = ", ".join("?" for _ in range(_FILE_COLUMNS))
    for manifest in manifests:
        run = manifest.flow_run_id
        connection.execute("DELETE FROM files WHERE run = ?", (run,))
        connection.execute(
            f"INSERT OR REPLACE INTO runs VALUES ({', '.join('?' for _ in range(12))})",
            _run_row(manifest),
        )
        rows = [row for row in _file_rows(manifest, opinions) if exists(row[-1])]
        connection.executemany(
            f"INSERT OR REPLACE INTO files VALUES ({marks})", [row[:-1] for row in rows]
        )


def _run_row(manifest: Manifest) -> tuple[object, ...]:
    started = datetime.fromisoformat(manifest.started).timestamp()
    ended = datetime.fromisoformat(manifest.ended).timestamp()
    stages = [(entry.name, entry.seconds, entry.status) for entry in manifest.stages]
    return (
        manifest.flow_run_id,
        manifest.flow,
        ended,
        max(0.0, ended - started - manifest.waited_seconds),
        manifest.cost_usd,
        manifest.quality,
        manifest.device_class,
        manifest.success,
        any(entry.status == "cached" for entry in manifest.stages),
        manifest.error.code if manifest.error else None,
        json.dumps(manifest.parameters),
        json.dumps(stages),
    )


def _file_rows(manifest: Manifest, opinions: Opinions) -> Iterator[tuple[Any, ...]]:
    ended = datetime.fromisoformat(manifest.ended).timestamp()
    state = "done" if manifest.success else "failed"
    made_by = {ref.sha256: entry for entry in manifest.stages for ref in entry.results}
    results = {ref.sha256 for ref in manifest.shown}
    every = {ref.sha256: ref for ref in (*manifest.shown, *manifest.artifacts)}
    said = _said(manifest)
    for place, (sha256, ref) in enumerate(every.items()):
        entry = made_by.get(sha256)
        prompt, model = _text(said.get("prompt")), _text(said.get("model"))
        loras = " ".join(_names(said.get("loras")))
        character = _text(manifest.parameters.get("character"))
        seed = said.get("seed")
        stage = entry.name if entry is not None else ""
        words = " ".join((prompt, manifest.flow, stage, model, loras, character)).casefold()
        yield (
            sha256,
            manifest.flow_run_id,
            place,
            ended,
            manifest.flow,
            sha256 in results,
            stage,
            ref.kind,
            ref.width,
            ref.height,
            ref.bytes,
            state,
            "" if seed is None else str(seed),
            model.casefold(),
            f" {loras.casefold()} ",
            character.casefold(),
            (manifest.consent.who if manifest.consent else "").casefold(),
            prompt,
            words,
            sha256 in opinions.stars,
            opinions.ratings.get(sha256, 0),
            _stack(manifest, prompt, model, ref),
            ref.model_dump_json(exclude={"metadata"}),
            key_of(ref),
        )


def _stack(manifest: Manifest, prompt: str, model: str, ref: ArtifactRef) -> str:
    """The same for all that one prompt, model and flow drew; else that of the run."""
    told = (manifest.flow, ref.kind, model, prompt) if prompt else (manifest.flow_run_id, ref.kind)
    return hashlib.sha256("\0".join(told).encode()).hexdigest()[:24]


def _said(manifest: Manifest) -> dict[str, JsonValue]:
    """What the run was asked for, with what the stage that drew first adds: a preset's model."""
    drew = (entry.parameters for entry in manifest.stages if entry.parameters.get("prompt"))
    first = next(drew, {})
    given = {name: value for name, value in manifest.parameters.items() if value is not None}
    return {**first, **given}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _names(loras: object) -> Iterator[str]:
    for one in cast("list[object]", loras) if isinstance(loras, list) else []:
        name = cast("dict[str, object]", one).get("name") if isinstance(one, dict) else one
        if isinstance(name, str):
            yield name
