"""What a place for bytes must offer; the local folder and S3 both do."""

from pathlib import Path
from typing import Protocol


class Backend(Protocol):
    """Keys are relative POSIX paths such as `outputs/ab/abcd.png`; writes are all or nothing."""

    def write(self, key: str, source: Path | bytes, media_type: str) -> None:
        """Keep bytes or a file under `key`; a reader sees all of it or nothing.

        Raises:
            StoreUnavailableError: the store did not answer (retried).
            DiskFullError: no room is left.
            ForbiddenPathError: the key leaves the store, or writing is not allowed.
        """
        ...

    def read(self, key: str) -> bytes:
        """All bytes under `key`.

        Raises:
            MissingFileError: nothing is kept under the key.
            StoreUnavailableError: the store did not answer (retried).
        """
        ...

    def fetch(self, key: str, target: Path) -> Path:
        """A local file with the bytes under `key`: its own one, or `target` after a download."""
        ...

    def exists(self, key: str) -> bool:
        """Whether anything is kept under `key`."""
        ...

    def size(self, key: str) -> int | None:
        """Bytes kept under `key`; None when there is nothing."""
        ...

    def list(self, prefix: str) -> list[str]:
        """Keys that start with `prefix`, sorted."""
        ...

    def delete(self, key: str) -> None:
        """Forget `key`; no error when nothing is there."""
        ...

    def link(self, key: str, seconds: int) -> str:
        """A link a browser can open: presigned for S3, file: for a folder."""
        ...
