"""The store as a folder."""

import errno
import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from safelight.errors import DiskFullError, ForbiddenPathError, MissingFileError
from safelight.store.keys import checked_key


class LocalFolder:
    """Keeps bytes as files under one folder, which keys never leave."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def path(self, key: str) -> Path:
        """The file of `key`.

        Raises:
            ForbiddenPathError: the key is no plain relative path, or leads out of the folder.
        """
        path = (self.root / checked_key(key)).resolve()  # follows links, which may lead out
        if not path.is_relative_to(self.root):
            raise ForbiddenPathError(
                f"key {key!r} leads outside the store folder {self.root}",
                "remove the link that leads there",
            )
        return path

    def write(self, key: str, source: Path | bytes, media_type: str) -> None:
        """See `Backend.write`; written beside its place, synced, then renamed."""
        del media_type  # the extension says it
        path = self.path(key)
        with _disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".part-", dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    for chunk in _chunks(source):
                        file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(name, path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise

    def read(self, key: str) -> bytes:
        """See `Backend.read`."""
        path = self.path(key)
        with _disk_errors(path):
            return path.read_bytes()

    def fetch(self, key: str, target: Path) -> Path:
        """See `Backend.fetch`; the file itself, which must not be changed."""
        del target
        path = self.path(key)
        if not path.is_file():
            raise _missing(path)
        return path

    def exists(self, key: str) -> bool:
        """See `Backend.exists`."""
        return self.path(key).is_file()

    def size(self, key: str) -> int | None:
        """See `Backend.size`."""
        path = self.path(key)
        return path.stat().st_size if path.is_file() else None

    def list(self, prefix: str) -> list[str]:
        """See `Backend.list`."""
        keys = (
            path.relative_to(self.root).as_posix()
            for path in self.root.rglob("*")
            if path.is_file() and not path.name.startswith(".part-")
        )
        return sorted(key for key in keys if key.startswith(prefix))

    def delete(self, key: str) -> None:
        """See `Backend.delete`."""
        self.path(key).unlink(missing_ok=True)

    def link(self, key: str, seconds: int) -> str:
        """See `Backend.link`; a file: link does not expire."""
        del seconds
        return self.path(key).as_uri()


def _chunks(source: Path | bytes, size: int = 1 << 20) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while chunk := file.read(size):
            yield chunk


def _missing(path: Path) -> MissingFileError:
    return MissingFileError(f"nothing is stored at {path}", "check the artifact's uri")


@contextmanager
def _disk_errors(path: Path) -> Generator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise _missing(path) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"no room left to write {path}", "free space or move VOLUME_ROOT to a larger disk"
            ) from error
        raise ForbiddenPathError(
            f"{path}: {error.strerror}", "give this user read and write rights on VOLUME_ROOT"
        ) from error
