"""Wildcards: the files below `wildcards/` of the volume, by the names that prompts call them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

from safelight.errors import ForbiddenPathError, MissingFileError
from safelight.prompts.wildcard_files import (
    ENDINGS,
    STRUCTURED,
    BadWildcardError,
    Value,
    values_of_structure,
    values_of_text,
)
from safelight.settings import settings
from safelight.store.disk import disk_errors
from safelight.store.opening import opened_below

FOLDER = "wildcards"
MOST_FILES = 20_000
LARGEST_FILE = 16 * 2**20
"""Bytes."""
REMEMBERED = 500
"""Files whose values are kept in memory until they change."""


@dataclass(frozen=True)
class _File:
    """As it was found; when its content may have changed, it is another."""

    path: Path
    name: str
    """From the folder, with slashes."""
    changed: int
    size: int


_Listed = _File | tuple[Value, ...]


class Wildcards:
    """The wildcards of a folder; looks into it once, when the first is asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._found: dict[str, tuple[str, tuple[Value, ...]]] = {}

    def values(self, name: str, where: str) -> tuple[str, tuple[Value, ...]]:
        """What a wildcard stands for, in the order of names and lines, each text once.

        A text that stands several times has its weights together.

        Args:
            name: of one, or a pattern of several; one that is nowhere at the top is looked for
                below every folder.
            where: the prompt calls it, for messages.

        Returns:
            The name under which it was found, and its values.

        Raises:
            ForbiddenPathError: the name leads out of the folder.
            MissingFileError: there is none of that name.
            BadWildcardError: its file cannot be read.
        """
        if name not in self._found:
            self._found[name] = self._looked_up(name.strip(), where)
        return self._found[name]

    def _looked_up(self, name: str, where: str) -> tuple[str, tuple[Value, ...]]:
        plain = name.replace("\\", "/")
        if plain.startswith("/") or ".." in plain.split("/") or ":" in plain:
            raise ForbiddenPathError(
                f"{where}: {name[:80]!r} leads out of the folder of wildcards",
                f"name a file below {FOLDER} of the volume",
            )
        plain = plain.strip("/")
        found = self._named(plain)
        if not found:
            plain = f"**/{plain}"
            found = self._named(plain)
        merged: dict[str, Value] = {}
        for value in (value for each in found for value in self._values(each)):
            before = merged.get(value.text)
            weight = value.weight + (before.weight if before else Decimal(0))
            merged[value.text] = Value(value.text, weight, before.where if before else value.where)
        if not merged:
            raise self._missing(name, where)
        return found[0] if len(found) == 1 else plain, tuple(merged.values())

    def _named(self, pattern: str) -> list[str]:
        if "*" not in pattern and "?" not in pattern:
            return [pattern] if pattern in self._known else []
        return [name for name in sorted(self._known) if fnmatchcase(name, pattern)]

    def _missing(self, name: str, where: str) -> MissingFileError:
        near = get_close_matches(name, self._known, n=1)
        meant = f"; did you mean __{near[0]}__?" if near else ""
        there = f"{len(self._known)} others" if self._known else "none at all"
        return MissingFileError(
            f"{where}: there is no wildcard {name[:80]!r}, and {there}{meant}",
            f"put {PurePosixPath(name).name[:80] or 'it'}.txt into {FOLDER} of the volume, or "
            "write a backslash before the underscores",
        )

    @cached_property
    def _known(self) -> dict[str, list[_Listed]]:
        """Names and where their values come from; texts are read when they are asked for."""
        found: dict[str, list[_Listed]] = {}
        for file in self._files():
            name = PurePosixPath(file.name)
            if name.suffix.lower() not in STRUCTURED:
                found.setdefault(name.with_suffix("").as_posix(), []).append(file)
                continue
            parent = "" if name.parent == PurePosixPath(".") else f"{name.parent.as_posix()}/"
            for inner, values in _lists(self._root, file):
                found.setdefault(parent + inner, []).append(values)
        return found

    def _values(self, name: str) -> Iterator[Value]:
        for listed in self._known[name]:
            yield from _lines(self._root, listed) if isinstance(listed, _File) else listed

    def _files(self) -> Sequence[_File]:
        """Plain files below the folder, by name; links are followed nowhere below it."""
        found: list[_File] = []
        with disk_errors(self._root):
            for folder, folders, files in os.walk(self._root):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                for name in files:
                    path = Path(folder) / name
                    if path.suffix.lower() not in ENDINGS or name.startswith("."):
                        continue
                    facts = path.lstat()
                    if not path.is_symlink():
                        shown = path.relative_to(self._root).as_posix()
                        found.append(_File(path, shown, facts.st_mtime_ns, facts.st_size))
                if len(found) > MOST_FILES:
                    raise BadWildcardError(
                        f"{FOLDER} has more than {MOST_FILES} files", "take some of them away"
                    )
        return sorted(found, key=lambda file: file.name)


@lru_cache(maxsize=REMEMBERED)
def _lines(root: Path, file: _File) -> tuple[Value, ...]:
    return tuple(values_of_text(_text(root, file), file.name))


@lru_cache(maxsize=REMEMBERED)
def _lists(root: Path, file: _File) -> tuple[tuple[str, tuple[Value, ...]], ...]:
    text, stem = _text(root, file), PurePosixPath(file.name).stem
    found = values_of_structure(text, file.name, stem)
    return tuple((name, tuple(values)) for name, values in found.items())


def _text(root: Path, file: _File) -> str:
    with opened_below(root, file.path) as handle, os.fdopen(os.dup(handle), "rb") as opened:
        with disk_errors(file.path):
            data = opened.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise BadWildcardError(
            f"{file.name} has {file.size} bytes, at most {LARGEST_FILE} are read", "split it"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadWildcardError(
            f"{file.name} is not UTF-8 at byte {error.start + 1}", "save it as UTF-8"
        ) from error


def current_wildcards() -> Wildcards:
    """Those of this process's volume, as they are now."""
    return Wildcards(settings().volume_root.absolute() / FOLDER)
