"""The registry: which models there are on this machine, found by names that people know.

Nothing is loaded. Files are found by a scan, described by their headers in a confined process, and
hashed when they changed.
"""

import logging
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue

from safelight.errors import (
    DependencyMissingError,
    InvalidFieldValueError,
    MissingFileError,
)
from safelight.weights.database import Database, database_file
from safelight.weights.hashing import hashing_many, weights_sha256
from safelight.weights.kinds import ModelType, model_type
from safelight.weights.looking import described_units
from safelight.weights.naming import ends_with, near
from safelight.weights.places import models_folder
from safelight.weights.rows import (
    ModelInfo,
    Row,
    below,
    drop,
    given_of,
    info_of,
    require_free,
    row_of,
    rows,
    set_sha256,
    stamps,
    upsert,
    write_names,
)
from safelight.weights.scanning import Skipped, Unit, unit_at, walk

__all__ = ["ModelInfo", "ModelRegistry", "ModelType", "Scan", "registry"]
LOG = logging.getLogger(__name__)
AT_ONCE = 256
"""Models that are described and written together."""
LOOKERS = 2
"""Processes that describe them at a time."""
SHOWN = 12
"""Names that a message lists."""


class Scan(BaseModel):
    """What a scan of a folder found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    directory: Path
    """The folder."""
    models: int
    """How many models lie below it."""
    new: int
    """Those that were not known."""
    changed: int
    """Those whose files are others than before."""
    gone: int
    """Those that were known and are no longer there."""
    hashed: int
    """Those whose sha256 was computed."""
    skipped: tuple[tuple[str, str], ...] = ()
    """What has the name of a model and is not taken for one, and why."""


class ModelRegistry:
    """All models of this machine; several processes may use it at once.

    Args:
        file: of the database; None is that of this machine under the volume root.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._database = Database(file or database_file())

    def scan_models(
        self, directory: Path | str | None = None, *, hashes: bool = True
    ) -> list[ModelInfo]:
        """All models below a folder, after a look at what changed in it.

        Args:
            directory: None is the models folder.
            hashes: whether the sha256 of what is new or changed is computed, which reads it whole.

        Raises:
            MissingFileError: there is no such folder; what is known of it is kept.
        """
        scan = self.scan(directory, hashes=hashes)
        found = self._database.read(lambda c: rows(c, *below(scan.directory)))
        return [info_of(row) for row in found]

    def scan(self, directory: Path | str | None = None, *, hashes: bool = True) -> Scan:
        """The same, told in numbers.

        Raises:
            MissingFileError: there is no such folder.
        """
        root = Path(directory or models_folder()).resolve()
        if not root.is_dir():
            raise MissingFileError(
                f"there is no folder {root}", "make it, or set SAFELIGHT_MODELS_DIR"
            )
        known = self._database.read(lambda c: stamps(c, root))
        walked = walk(root)
        changed = [u for u in walked.units.values() if known.get(u.path, ("",))[0] != u.stamp]
        several = [changed[at : at + AT_ONCE] for at in range(0, len(changed), AT_ONCE)]
        with ThreadPoolExecutor(LOOKERS) as lookers:
            for units, told in zip(several, lookers.map(described_units, several), strict=True):
                entered = [row_of(unit, one, root) for unit, one in zip(units, told, strict=True)]
                self._database.write(lambda c, e=entered: upsert(c, e))
        gone = {p: stamp for p, (stamp, _) in known.items() if p not in walked.units}
        new = sum(unit.path not in known for unit in changed)
        if gone:
            self._database.write(lambda c: drop(c, gone))
        if new or gone:
            self._database.write(write_names)
        return Scan(
            directory=root,
            models=len(walked.units),
            new=new,
            changed=len(changed) - new,
            gone=len(gone),
            hashed=self._hash(walked.units, known) if hashes else 0,
            skipped=tuple((each.path, each.why) for each in _each_once(walked.skipped)),
        )

    def register_model(
        self,
        file_path: Path | str,
        model_type: "ModelType | str | None" = None,
        *,
        name: str | None = None,
        description: str | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, JsonValue] | None = None,
        licence: str | None = None,
    ) -> ModelInfo:
        """Enter a model, or what people want said of one; it outlives later scans.

        Args:
            file_path: a single file, or a folder that is one model.
            model_type: what it is for; None is what it says itself.
            name: to call it by; None is the stem.
            description: None is what it says itself.
            tags: beside its own.
            metadata: beside its own.
            licence: None is what it says itself.

        Raises:
            MissingFileError: there is no such model.
            InvalidFieldValueError: the name is another's, or none; there is no such kind.
        """
        path = Path(file_path).resolve()
        unit = unit_at(path)
        if unit is None:
            raise MissingFileError(
                f"{path} is no weights file and no folder that is one model",
                "name a .safetensors, .ckpt, .pth or .pt file, or a diffusers folder",
            )
        kind = None if model_type is None else _kind(model_type)
        given = given_of(name, kind, description, tags, metadata, licence)
        row = row_of(unit, described_units([unit])[0], path.parent)

        def enter(connection: sqlite3.Connection) -> None:
            upsert(connection, [row], given={row.path: given})
            if name is not None:
                require_free(connection, name, row.path)
            write_names(connection)

        self._database.write(enter)
        return self.at_path(path)

    def get_model(self, name: str, model_type: "ModelType | str | None" = None) -> ModelInfo:
        """The model of this name.

        Args:
            name: as `list_models` gives it; also the end of its path, without the extension or
                with it, as in `portraits/dream`.
            model_type: of which kind; None is any.

        Raises:
            DependencyMissingError: there is none; names that are like it are listed.
            InvalidFieldValueError: several have it.
        """
        found = self._named(name, None if model_type is None else _kind(model_type))
        if len(found) == 1:
            return info_of(found[0])
        if found:
            listed = ", ".join(f"{row.name} ({row.model_type})" for row in found[:SHOWN])
            raise InvalidFieldValueError(
                f"{name!r} may be any of {len(found)} models: {listed}", "name one of these"
            )
        kind = None if model_type is None else _kind(model_type)
        alike = near(name, [row.name for row in self._of_kind(kind)])
        said = f"; near it are: {', '.join(alike)}" if alike else ""
        raise DependencyMissingError(
            f"there is no {kind or 'model'} {name[:80]!r} in the registry{said}",
            "correct the name, or put its file into the models folder and run: "
            "safelight models scan",
        )

    def get_model_path(self, name: str, model_type: "ModelType | str | None" = None) -> Path:
        """The file or folder of a model.

        Raises:
            MissingFileError: it is known and no longer there.
            PipelineError: as `get_model`.
        """
        path = self.get_model(name, model_type).file_path
        if not path.exists():
            raise MissingFileError(
                f"model {name} lay at {path}, where nothing is now",
                "put it there again, or run: safelight models scan",
            )
        return path

    def list_models(self, model_type: "ModelType | str | None" = None) -> list[ModelInfo]:
        """All models of a kind, by name; None is any."""
        kind = None if model_type is None else _kind(model_type)
        return [info_of(row) for row in self._of_kind(kind)]

    def list_all(self) -> list[ModelInfo]:
        """All models, by name."""
        return self.list_models()

    def count_models(self, model_type: "ModelType | str | None" = None) -> int:
        """How many there are of a kind; None is any."""
        where, values = (
            ("1", ()) if model_type is None else ("model_type = ?", (_kind(model_type),))
        )
        count = f"SELECT count(*) FROM models WHERE {where}"
        return int(self._database.read(lambda c: c.execute(count, values).fetchone()[0]))

    def model_exists(self, name: str, model_type: "ModelType | str | None" = None) -> bool:
        """Whether there is exactly one model of this name."""
        return len(self._named(name, None if model_type is None else _kind(model_type))) == 1

    def remove_model(self, name: str, model_type: "ModelType | str | None" = None) -> bool:
        """Forget a model, and what was said of it; its file stays, and the next scan finds it.

        Returns:
            Whether there was one.

        Raises:
            InvalidFieldValueError: several have this name.
        """
        try:
            path = str(self.get_model(name, model_type).file_path)
        except DependencyMissingError:
            return False

        def forget(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM models WHERE path = ?", (path,))
            write_names(connection)

        self._database.write(forget)
        return True

    def clear(self) -> int:
        """Forget all models, and how many there were; files and acknowledgements stay."""
        return self._database.write(lambda c: c.execute("DELETE FROM models").rowcount)

    def acknowledge(self, source: str, code: str, who: str, sha256: str | None) -> None:
        """Record who took a model in spite of an error, and when.

        Args:
            source: where it came from, without any token.
            code: of the error.
            who: the person.
            sha256: of what was fetched.
        """
        values = (source, sha256, code, who, datetime.now(UTC).isoformat(timespec="seconds"))
        insert = (
            "INSERT INTO acknowledgements (source, sha256, code, who, at) VALUES (?, ?, ?, ?, ?)"
        )
        self._database.write(lambda c: c.execute(insert, values))

    def acknowledgements(self, sha256: str | None = None) -> list[dict[str, JsonValue]]:
        """Who took what, and when: source, sha256, code, who, at; of one model, or of all."""
        where, values = ("", ()) if sha256 is None else ("WHERE sha256 = ?", (sha256,))
        select = (
            f"SELECT source, sha256, code, who, at FROM acknowledgements {where} ORDER BY number"
        )
        names = ("source", "sha256", "code", "who", "at")
        found = self._database.read(lambda c: c.execute(select, values).fetchall())
        return [dict(zip(names, row, strict=True)) for row in found]

    def list_named(self, name: str, model_type: "ModelType | str | None" = None) -> list[ModelInfo]:
        """All models that a name may mean."""
        found = self._named(name, None if model_type is None else _kind(model_type))
        return [info_of(row) for row in found]

    def by_sha256(self, sha256: str) -> ModelInfo | None:
        """A model with this content; None where none is known."""
        found = self._database.read(lambda c: rows(c, "sha256 = ?", (sha256,)))
        return info_of(found[0]) if found else None

    def hashed(self, path: Path, sha256: str) -> None:
        """Enter a model that is used, with the sha256 that it turned out to have."""
        unit = unit_at(path)
        if unit is None:
            return
        known = self._database.read(lambda c: rows(c, "path = ?", (unit.path,)))
        if not known or known[0].stamp != unit.stamp:
            row = row_of(unit, described_units([unit])[0], models_folder())
            self._database.write(lambda c: upsert(c, [row]))
            self._database.write(write_names)
        self._database.write(lambda c: set_sha256(c, unit, sha256))

    def _named(self, name: str, kind: ModelType | None) -> list[Row]:
        of_kind = ("", ()) if kind is None else (" AND model_type = ?", (kind,))
        last = name.rpartition("/")[2]
        stem = last.rpartition(".")[0] or last

        def ask(connection: sqlite3.Connection) -> list[Row]:
            exact = rows(connection, f"name = ?{of_kind[0]}", (name, *of_kind[1]))
            if exact:
                return exact
            wanted = f"stem IN (?, ?){of_kind[0]}"
            candidates = rows(connection, wanted, (last, stem, *of_kind[1]))
            return [row for row in candidates if ends_with(row.path, name)]

        return self._database.read(ask)

    def _of_kind(self, kind: ModelType | None) -> list[Row]:
        where, values = ("1", ()) if kind is None else ("model_type = ?", (kind,))
        return self._database.read(lambda c: rows(c, f"{where} ORDER BY name, path", values))

    def at_path(self, path: Path) -> ModelInfo:
        """The model that lies there.

        Raises:
            MissingFileError: none is known there.
        """
        found = self._database.read(lambda c: rows(c, "path = ?", (str(path),)))
        if not found:
            raise MissingFileError(f"no model is known at {path}", "run: safelight models scan")
        return info_of(found[0])

    def _hash(self, units: Mapping[str, Unit], known: Mapping[str, tuple[str, str | None]]) -> int:
        count = 0
        with hashing_many():
            for path, unit in units.items():
                stamp, sha256 = known.get(path, ("", None))
                if stamp == unit.stamp and sha256 is not None:
                    continue
                try:
                    found = weights_sha256(Path(path))
                except OSError as error:
                    LOG.warning("%s cannot be hashed: %s", path, error.strerror)
                    continue
                self._database.write(lambda c, u=unit, s=found: set_sha256(c, u, s))
                count += 1
        return count


def registry() -> ModelRegistry:
    """The registry of this machine, under the volume root that the settings name."""
    return ModelRegistry()


def _kind(given: "ModelType | str") -> ModelType:
    return model_type(given)


def _each_once(skipped: Iterable[Skipped]) -> list[Skipped]:
    return list({each.path: each for each in skipped}.values())
