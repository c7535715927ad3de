"""Tells whether the code on disk is still the code that a process has imported."""

import os
import sys
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec
from os.path import dirname, isabs
from pathlib import Path

PACKAGES = ("flows", "presets", "tasks", "safelight")
INSTALLED = ("stdlib", "platstdlib", "purelib", "platlib", "scripts")
"""Folders of Python's own modules and of what is installed, as `sysconfig` names them.

Not its other ones: `data` is all of /usr with a system's Python, flows in /usr/src included.
"""
Stamp = tuple[int, int]
"""Time of the last change in ns, and size."""


def code_stamps() -> dict[str, Stamp]:
    """Stamps of every source file of this project, and of the folder of installed packages.

    Taken before a process starts, so that nothing it imports can be older than they say.
    """
    stamps = {name: stamp for folder in _packages() for name, stamp in _sources(str(folder))}
    installed = Path(sysconfig.get_path("purelib"))
    if (stamp := stamp_of(installed)) is not None:
        stamps[str(installed)] = (stamp[0], 0)  # its time changes when a package comes or goes
    return stamps


def changed_since(stamps: dict[str, Stamp]) -> str | None:
    """Name a file that came, went or changed since the stamps were taken; None when none did."""
    now = code_stamps()
    differing = {name for name, _ in now.items() ^ stamps.items()}
    return min(differing, default=None)


class ImportedModules:
    """Watches modules from outside this project and outside the installed packages.

    Flows of other projects run in the same processes, from folders that nobody told us before.
    """

    def __init__(self) -> None:
        installed = {sysconfig.get_path(name) for name in INSTALLED}
        self._ours = {*map(Path, installed), *_packages()}
        self._foreign_folders: dict[str, bool] = {}
        self._stamps: dict[str, Stamp | None] = {}

    def remember(self, since: float) -> None:
        """Note what has been imported meanwhile.

        Args:
            since: `time.time()` before the imports; a file changed after that counts as changed,
                for it is unknown which of its contents was read.
        """
        for name in self._foreign():
            if name not in self._stamps:
                stamp = stamp_of(Path(name))
                fresh = stamp is not None and stamp[0] < since * 1e9
                self._stamps[name] = stamp if fresh else None

    def changed(self) -> str | None:
        """Name a module's file that is not what was imported; None when all are."""
        for name, stamp in self._stamps.items():
            if stamp is None or stamp_of(Path(name)) != stamp:
                return name
        return None

    def _foreign(self) -> Iterator[str]:
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            # what Python imported from a file has an absolute path; torch invents names of files
            if isinstance(file, str) and isabs(file) and self._is_foreign(dirname(file)):
                yield file

    def _is_foreign(self, folder: str) -> bool:
        known = self._foreign_folders.get(folder)
        if known is None:  # compared by parts: /srv/p holds nothing of /srv/pictures
            known = not any(Path(folder).is_relative_to(ours) for ours in self._ours)
            self._foreign_folders[folder] = known
        return known


def _packages() -> Iterator[Path]:
    for package in PACKAGES:
        spec = find_spec(package)
        yield from map(Path, (spec.submodule_search_locations or ()) if spec else ())


def _sources(folder: str) -> Iterator[tuple[str, Stamp]]:
    """Each source file below a folder; looked at once, for this is done before each run."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _sources(entry.path)
                elif entry.name.endswith(".py") and entry.is_file():
                    found = entry.stat()
                    yield entry.path, (found.st_mtime_ns, found.st_size)
    except OSError:  # it went away meanwhile, which the next look shows
        return


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of a file; None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
