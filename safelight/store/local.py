"""The store as a folder."""

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG

from safelight.errors import ChecksumMismatchError, ForbiddenPathError, MissingFileError
from safelight.private import make_file, make_folder
from safelight.store.disk import disk_errors, half_made, sweep_abandoned, sync_folder
from safelight.store.keys import checked_key, checked_prefix

UNFINISHED = ".unfinished"
"""Where files are written before they get their name; no key can lead there.

One lies in the store's folder, and one in each folder below that is on another file system.
"""


class LocalFolder:
    """Keeps bytes as files under one folder, which keys never leave."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._apart: set[Path] = set()
        """Folders that files of those above cannot be renamed into."""
        self._swept = {self.root}
        sweep_abandoned(self.root / UNFINISHED)

    def path(self, key: str) -> Path:
        """The file of `key`.

        Raises:
            ForbiddenPathError: the key is no plain relative path, or leads out of the folder.
        """
        named = self.root / checked_key(key)
        try:
            path = named.resolve()  # follows links, which may lead out
        except RuntimeError:  # in circles
            path = None
        if path is None or not path.is_relative_to(self.root):
            raise ForbiddenPathError(
                f"key {key!r} leads outside the store folder {self.root}",
                "remove the link that leads there",
            )
        return path

    def write(
        self, key: str, source: Path | bytes, media_type: str, sha256: str | None = None
    ) -> None:
        """See `Backend.write`; written elsewhere on its file system, synced, then renamed."""
        del media_type  # the extension says it
        path = self.path(key)
        with disk_errors(path):
            new = [folder for folder in path.parents if not folder.exists()]
            make_folder(path.parent)
            self._put_in_place(path, key, source, sha256)
            for folder in (path.parent, *(folder.parent for folder in new)):
                sync_folder(folder)

    def _put_in_place(self, path: Path, key: str, source: Path | bytes, sha256: str | None) -> None:
        """Write beside and rename, from as far up as the file system of `path` reaches."""
        folders = self._on_one_disk(path.parent)
        while True:
            folder = folders.pop()
            if folder not in self._swept:
                self._swept.add(folder)
                sweep_abandoned(folder / UNFINISHED)
            with half_made(folder / UNFINISHED) as half:
                _copied(source, half, key, sha256)
                try:
                    os.replace(half, path)
                except OSError as error:
                    # part of a disk that is mounted a second time: only the rename tells
                    if error.errno != errno.EXDEV or not folders:
                        raise
                else:
                    return
            self._apart.add(folders[-1])

    def _on_one_disk(self, folder: Path) -> list[Path]:
        """A folder of the store and those above it, as far as files can be renamed between them."""
        device = folder.stat().st_dev
        found: list[Path] = []
        for above in (folder, *folder.parents):
            if above.stat().st_dev != device:
                break
            found.append(above)
            if above == self.root or above in self._apart:
                break
        return found

    def read(self, key: str) -> bytes:
        """See `Backend.read`."""
        path = self.fetch(key, self.root)
        with disk_errors(path):
            return path.read_bytes()

    def fetch(self, key: str, target: Path) -> Path:
        """See `Backend.fetch`; the file itself, which must not be changed."""
        del target
        path = self.path(key)
        if not path.is_file():
            raise MissingFileError(f"nothing is stored at {path}", "check the artifact's uri")
        return path

    def exists(self, key: str) -> bool:
        """See `Backend.exists`."""
        return self.path(key).is_file()

    def size(self, key: str) -> int | None:
        """See `Backend.size`."""
        path = self.path(key)
        with disk_errors(path):
            try:
                facts = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return facts.st_size if S_ISREG(facts.st_mode) else None

    def list(self, prefix: str) -> list[str]:
        """See `Backend.list`."""
        folder = checked_prefix(prefix).rpartition("/")[0]
        top = self.path(folder) if folder else self.root
        keys = (
            path.relative_to(self.root).as_posix()
            for parent, _, names in os.walk(top)  # does not mind folders that vanish meanwhile
            for path in (Path(parent, name) for name in names)
            if path.is_file()
        )
        return sorted(
            key for key in keys if key.startswith(prefix) and UNFINISHED not in key.split("/")
        )

    def delete(self, key: str) -> None:
        """See `Backend.delete`."""
        path = self.path(key)
        with disk_errors(path):
            path.unlink(missing_ok=True)

    def link(self, key: str, seconds: int, saved_as: str = "") -> str:
        """See `Backend.link`; a file: link does not expire, and has the name of its file."""
        del seconds, saved_as
        return self.path(key).as_uri()

    def link_ends(self, seconds: int) -> str:
        """See `Backend.link_ends`."""
        del seconds
        return ""


def _copied(source: Path | bytes, half: Path, key: str, sha256: str | None) -> None:
    seen = hashlib.sha256()
    with os.fdopen(make_file(half), "wb") as file:
        for chunk in _chunks(source):
            seen.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if sha256 is not None and seen.hexdigest() != sha256:
        raise ChecksumMismatchError(
            f"{key} has sha256 {seen.hexdigest()}, expected {sha256}: the file changed "
            "while it was stored",
            "wait until the file is complete, then run the flow again",
        )


def _chunks(source: Path | bytes, size: int = 1 << 20) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while chunk := file.read(size):
            yield chunk
