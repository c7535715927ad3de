"""Gives results their names: in a place that may hold files already, or together, as in a zip."""

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from urllib.parse import quote

from safelight.exports.facts import Result
from safelight.exports.parts import Taken, fitted
from safelight.exports.template import Template
from safelight.store.artifact import ArtifactRef
from safelight.store.places import Place
from safelight.store.store import current_store

NOT_MADE = "not-made.txt"
"""In a zip: names the requests without a result, and why."""


def named(results: Iterable[Result], template: Template) -> list[tuple[PurePosixPath, Result]]:
    """Each result with its path; the same results have the same paths, and no two the same one."""
    taken = Taken()
    taken.take(PurePosixPath(NOT_MADE))
    found: list[tuple[PurePosixPath, Result]] = []
    for result in results:
        path = next(taken.candidates(_parts(result, template), result.ref.extension))
        taken.take(path)
        found.append((path, result))
    return found


def saved_as(result: Result, template: Template) -> str:
    """What a single file is called where people save it: the path's last part."""
    return f"{_parts(result, template)[-1]}{result.ref.extension}"


def disposition(name: str, kind: str = "inline") -> str:
    """The header Content-Disposition of a file with this name (RFC 6266), any characters in it."""
    ascii_only = "".join(c if " " <= c < "\x7f" and c not in '"\\%' else "_" for c in name)
    return f"{kind}; filename=\"{ascii_only}\"; filename*=UTF-8''{quote(name, safe='')}"


class Placing:
    """Copies results to a place; what lies there stays, and what is the same is not copied again.

    Args:
        place: where.
        template: of the names.
        below: folders above all of them.
    """

    def __init__(self, place: Place, template: Template, below: tuple[str, ...] = ()) -> None:
        self.place = place
        self.template = template
        self._below = below
        self._taken = Taken()
        self._known: set[PurePosixPath] = set()
        self._passed: dict[str, list[PurePosixPath]] = {}
        """Files that were there when their path was wanted, for something else."""

    def put(self, result: Result, *below: str) -> str:
        """Copy a result, unless this place has it under its name from an earlier time.

        Args:
            result: what.
            below: further folders above its path.

        Returns:
            Where people find it.
        """
        ref = result.ref
        parts = [*self._below, *below, *_parts(result, self.template)]
        *folders, _ = parts = fitted(parts, ref.extension)
        self._look(folders)
        passed = self._passed.setdefault("/".join(parts), [])
        path = next((there for there in passed if self.place.holds(there, ref)), None)
        if path is None:
            path = self._copied(self._taken.candidates(parts, ref.extension), passed, ref)
        else:
            passed.remove(path)
        self._taken.take(path)
        return self.place.shown(path)

    def _copied(
        self, paths: Iterator[PurePosixPath], passed: list[PurePosixPath], ref: ArtifactRef
    ) -> PurePosixPath:
        """The first path that holds the artifact, or that nothing lies at."""
        while True:
            path = next(paths)
            there = self._taken.there(path)
            if there is None:
                if self.place.put(path, current_store().fetch(ref), ref):
                    return path
                there = path  # another process was faster
            if self.place.holds(there, ref):
                return there
            passed.append(there)

    def _look(self, folders: list[str]) -> None:
        """Learn what lies on the way to a folder, and in it."""
        for depth in range(len(folders) + 1):
            folder = self._taken.folder(folders[:depth])
            if folder in self._known:
                continue
            self._known.add(folder)
            for name, is_folder in self.place.entries(folder):
                know = self._taken.know_folder if is_folder else self._taken.know_file
                know(folder / name)


def _parts(result: Result, template: Template) -> list[str]:
    return fitted(template.fill(result.facts, result.otherwise), result.ref.extension)
