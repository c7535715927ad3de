"""What a place for bytes must offer; the local folder and S3 both do."""

from pathlib import Path
from typing import Protocol


class Backend(Protocol):
    """Keys are relative POSIX paths such as `outputs/ab/abcd.png`; writes are all or nothing.

    All methods raise ForbiddenPathError for a key that `checked_key` refuses or a prefix that
    `checked_prefix` refuses, StoreUnavailableError when the store does not answer, and
    AuthInvalidError when it refuses the keys.
    """

    def write(
        self, key: str, source: Path | bytes, media_type: str, sha256: str | None = None
    ) -> None:
        """Keep bytes or a file under `key`; a reader sees all of it or nothing.

        Args:
            key: where.
            source: what; a file stays where it is.
            media_type: MIME type.
            sha256: digest of the source, when it is known.

        Raises:
            DiskFullError: no room is left.
            ChecksumMismatchError: other bytes arrived than `sha256` says; nothing was kept.
        """
        ...

    def read(self, key: str) -> bytes:
        """All bytes under `key`.

        Raises:
            MissingFileError: nothing is kept under the key.
            ChecksumMismatchError: they are not the bytes that were written, where that is known.
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

    def link(self, key: str, seconds: int, saved_as: str = "") -> str:
        """A link a browser can open: presigned for S3, file: for a folder.

        Args:
            key: of what.
            seconds: it is good for.
            saved_as: header Content-Disposition that its answer has.
        """
        ...

    def link_ends(self, seconds: int) -> str:
        """How long a link of `seconds` that is made now is good, for people; empty for ever."""
        ...
