"""Models as the registry keeps them, and as people and programs get them."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from pydantic import BaseModel, ConfigDict, JsonValue

from safelight.errors import InvalidFieldValueError
from safelight.weights.describing import Described
from safelight.weights.kinds import ModelType, kind_by_folder
from safelight.weights.naming import Placed, names_for, stem_of
from safelight.weights.scanning import LONGEST_NAME, Unit

COLUMNS = "path, name, model_type, size, stamp, sha256, discovered_at, facts, given"
Given = Mapping[str, JsonValue]
_UPSERT = """
INSERT INTO models (path, name, stem, model_type, size, stamp, discovered_at, facts, given)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (path) DO UPDATE SET
    sha256 = CASE WHEN stamp = excluded.stamp THEN sha256 END,
    size = excluded.size, stamp = excluded.stamp, facts = excluded.facts,
    given = coalesce(excluded.given, given),
    model_type = coalesce(
        json_extract(coalesce(excluded.given, given), '$.model_type'), excluded.model_type
    )
"""


class ModelInfo(BaseModel):
    """What is known about a model without loading it."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
    )

    name: str
    """What people call it."""
    model_type: ModelType
    """What it is for."""
    file_path: Path
    """A single file, or a folder."""
    file_size_bytes: int
    """All files together."""
    discovered_at: datetime
    """When this machine first saw it."""
    description: str = ""
    """What it is good at."""
    tags: tuple[str, ...] = ()
    """Words to find it by."""
    metadata: dict[str, JsonValue] = {}
    """What else is known: prediction_type, rank, alpha, trigger_words, preview, title, author,
    architecture, resolution, source; `problem` where it cannot be used."""
    sha256: str | None = None
    """Of the file, or over all files of a folder; None until it is computed."""
    licence: str | None = None
    """Of the weights, as far as it is known."""
    base_model: str | None = None
    """Family it belongs to: sd, sdxl, sd3, flux, or that of a video model."""


@dataclass(slots=True)
class Row:
    """A model in the database."""

    path: str
    name: str
    model_type: str
    size: int
    stamp: str
    sha256: str | None
    discovered_at: str
    facts: str
    given_text: str | None

    @property
    def given(self) -> Given:
        """What people said of it."""
        return cast("Given", json.loads(self.given_text)) if self.given_text else {}


def rows(connection: sqlite3.Connection, where: str, values: Sequence[str] = ()) -> list[Row]:
    """Those that fulfil a condition of ours, whose values stand apart."""
    found = connection.execute(f"SELECT {COLUMNS} FROM models WHERE {where}", tuple(values))
    return [Row(*row) for row in found]


def below(root: Path) -> tuple[str, tuple[str, str, str]]:
    """The condition that a path is a folder, or lies below it, with its values."""
    return "(path = ? OR path > ? AND path < ?)", (str(root), f"{root}/", f"{root}0")


def info_of(row: Row) -> ModelInfo:
    """What people said goes before what the model says."""
    facts = cast("dict[str, JsonValue]", json.loads(row.facts))
    given = row.given
    tags = cast("list[str]", facts["tags"])
    metadata = cast("dict[str, JsonValue]", facts["metadata"])
    if given:
        tags = [*dict.fromkeys([*cast("list[str]", given.get("tags", [])), *tags])]
        metadata = {**metadata, **cast("dict[str, JsonValue]", given.get("metadata", {}))}
    return ModelInfo.model_construct(  # checked when it was written; there are many
        name=row.name,
        model_type=ModelType(row.model_type),
        file_path=Path(row.path),
        file_size_bytes=row.size,
        discovered_at=datetime.fromisoformat(row.discovered_at),
        description=str(given.get("description") or facts["description"]),
        tags=tuple(tags),
        metadata=metadata,
        sha256=row.sha256,
        licence=cast("str | None", given.get("licence") or facts["licence"]),
        base_model=cast("str | None", facts["base_model"] or metadata.pop("base_model", None)),
    )


def row_of(unit: Unit, told: Described, root: Path) -> Row:
    """A model that was just found."""
    kind = told.kind or kind_by_folder(_folders(unit, root)) or _usual(unit)
    return Row(
        path=unit.path,
        name=stem_of(unit.path, folder=unit.folder),
        model_type=kind,
        size=unit.size,
        stamp=unit.stamp,
        sha256=None,
        discovered_at=datetime.now(UTC).isoformat(timespec="seconds"),
        facts=told.model_dump_json(exclude={"kind"}),
        given_text=None,
    )


def _folders(unit: Unit, root: Path) -> tuple[str, ...]:
    """Those that a model lies in, from the scanned one on: it may itself be `loras`."""
    return (
        (root.name, *Path(unit.path).parent.relative_to(root).parts)
        if unit.path.startswith(f"{root}/")
        else Path(unit.path).parent.parts[-1:]
    )


def _usual(unit: Unit) -> ModelType:
    return ModelType.UPSCALER if unit.path.lower().endswith(".pth") else ModelType.CHECKPOINT


def given_of(
    name: str | None,
    kind: ModelType | None,
    description: str | None,
    tags: Sequence[str],
    metadata: Mapping[str, JsonValue] | None,
    licence: str | None,
) -> Given:
    """What people say of a model.

    Raises:
        InvalidFieldValueError: the name cannot be one.
    """
    if name is not None:
        parts = name.split("/")
        plain = all(part and part[0] != "." and part.isprintable() for part in parts)
        if not plain or "\\" in name or len(name) > LONGEST_NAME:
            raise InvalidFieldValueError(
                f"{name[:80]!r} cannot be the name of a model",
                f"give it a name of at most {LONGEST_NAME} characters without a leading dot",
            )
    said: dict[str, JsonValue] = {
        "name": name,
        "model_type": kind,
        "description": description,
        "tags": list(tags) or None,
        "metadata": dict(metadata) if metadata else None,
        "licence": licence,
    }
    return {field: value for field, value in said.items() if value is not None}


def upsert(
    connection: sqlite3.Connection,
    entered: Sequence[Row],
    given: Mapping[str, Given] | None = None,
) -> None:
    """Enter models, or what is new about them; their names are those they would have alone."""
    connection.executemany(_UPSERT, _values(entered, given or {}))


def _values(
    entered: Sequence[Row], given: Mapping[str, Given]
) -> Iterator[tuple[str | int | None, ...]]:
    for row in entered:
        said = given.get(row.path)
        kind = row.model_type if said is None else str(said.get("model_type", row.model_type))
        written = None if said is None else json.dumps(said)
        yield (
            *(row.path, row.name, row.name, kind, row.size, row.stamp, row.discovered_at),
            *(row.facts, written),
        )


def write_names(connection: sqlite3.Connection) -> None:
    """Give every model a name of its own; it depends on the others."""
    select = "SELECT path, name, stem, model_type, json_extract(given, '$.name') FROM models"
    found = connection.execute(select).fetchall()
    names = names_for((Placed(path, kind, given), stem) for path, _, stem, kind, given in found)
    changed = [(names[path], path) for path, name, *_ in found if names[path] != name]
    connection.executemany("UPDATE models SET name = ? WHERE path = ?", changed)


def stamps(connection: sqlite3.Connection, root: Path) -> dict[str, tuple[str, str | None]]:
    """Stamp and sha256 of all models below a folder, by path."""
    where, values = below(root)
    select = f"SELECT path, stamp, sha256 FROM models WHERE {where}"
    return {path: (stamp, sha256) for path, stamp, sha256 in connection.execute(select, values)}


def drop(connection: sqlite3.Connection, gone: Mapping[str, str]) -> None:
    """Forget what is gone, unless it came back as another file meanwhile.

    What people said of a model waits for it to come back.

    Args:
        connection: in a transaction.
        gone: stamps by path.
    """
    connection.executemany(
        "DELETE FROM models WHERE path = ? AND stamp = ? AND given IS NULL", gone.items()
    )


def set_sha256(connection: sqlite3.Connection, unit: Unit, sha256: str) -> None:
    """Enter what a model turned out to have, unless it has changed meanwhile."""
    connection.execute(
        "UPDATE models SET sha256 = ? WHERE path = ? AND stamp = ?", (sha256, unit.path, unit.stamp)
    )


def require_free(connection: sqlite3.Connection, name: str, path: str) -> None:
    """Refuse a name that was given to another model of the kind.

    Raises:
        InvalidFieldValueError: it was.
    """
    (kind,) = connection.execute("SELECT model_type FROM models WHERE path = ?", (path,)).fetchone()
    for row in rows(connection, "model_type = ? AND given IS NOT NULL", (kind,)):
        if row.path != path and row.given.get("name") == name:
            raise InvalidFieldValueError(
                f"{name!r} is the name of {row.path}", "choose another name"
            )
