"""A watched prefix of a bucket; its objects appear whole."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from safelight.store.s3 import Bucket
from safelight.store.store import current_store
from safelight.watching.source import Seen, takes_no_part


class BucketSource:
    """All objects below a prefix; see `FolderSource` for what the methods do."""

    def __init__(self, bucket: Bucket, without: tuple[str, ...] = ()) -> None:
        """Nothing is asked yet.

        Args:
            bucket: with its prefix.
            without: prefixes below it that take no part, each with its slash.
        """
        self._bucket = bucket
        self._without = without

    def scan(self) -> list[Seen]:
        """All objects that may take part."""
        return [
            Seen(name, size, changed)
            for name, size, changed in self._bucket.objects()
            if size
            and not name.startswith(self._without)
            and not takes_no_part(name)
            and not any(part.startswith(".") or not part for part in name.split("/"))
        ]

    @contextmanager
    def opened(self, seen: Seen) -> Generator[Path | None]:
        """A local copy; None where the object is another by now."""
        if not self.is_as(seen):
            yield None
            return
        with current_store().workspace() as folder:
            path = Path(folder) / "object"
            self._bucket.fetch_named(seen.name, path)
            yield path

    def is_as(self, seen: Seen) -> bool:
        """Whether the object is still the one that was met."""
        facts = self._bucket.facts_of(seen.name)
        return facts is not None and facts[:2] == (seen.size, seen.changed)

    def remove(self, seen: Seen) -> None:
        """Delete the object that was met."""
        if self.is_as(seen):
            self._bucket.delete_named(seen.name)
