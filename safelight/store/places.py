"""Places for files under names that people chose: a folder, or a prefix of a bucket.

Beside the store, whose keys are made of content. Nothing in a place is ever overwritten.
"""

import errno
import os
import shutil
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path, PurePosixPath
from typing import Protocol

from safelight.digests import sha256_of
from safelight.private import as_started, make_folder
from safelight.store.artifact import ArtifactRef
from safelight.store.disk import disk_errors, half_made, sweep_abandoned
from safelight.store.patience import Patient
from safelight.store.s3 import Bucket

UNFINISHED = ".unfinished"
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)
"""File systems without hard links: FAT, many network shares."""


class Place(Protocol):
    """Paths are relative; their parts are names that file systems take."""

    def entries(self, folder: PurePosixPath) -> Sequence[tuple[str, bool]]:
        """Name of everything in a folder, and whether it is one; empty where there is no folder."""
        ...

    def holds(self, path: PurePosixPath, ref: ArtifactRef) -> bool:
        """Whether a file lies there that has the bytes of an artifact."""
        ...

    def put(self, path: PurePosixPath, source: Path, ref: ArtifactRef) -> bool:
        """Keep a copy of an artifact; False where anything is there.

        Args:
            path: where.
            source: its bytes.
            ref: what it is.
        """
        ...

    def shown(self, path: PurePosixPath) -> str:
        """How people find it."""
        ...


class DiskPlace:
    """A folder.

    Args:
        root: made when the first file comes.
        private: made for its owner alone; else as the person's other programs do.
    """

    def __init__(self, root: Path, *, private: bool) -> None:
        self.root = root
        self._private = private
        self._swept = False

    def entries(self, folder: PurePosixPath) -> Sequence[tuple[str, bool]]:
        """See `Place.entries`."""
        path = self.root / folder
        with disk_errors(path):
            try:
                with os.scandir(path) as found:
                    return [(each.name, each.is_dir()) for each in found if each.name != UNFINISHED]
            except (FileNotFoundError, NotADirectoryError):
                return []

    def holds(self, path: PurePosixPath, ref: ArtifactRef) -> bool:
        """See `Place.holds`; a link holds nothing."""
        target = self.root / path
        with disk_errors(target):
            if target.is_symlink() or not target.is_file() or target.stat().st_size != ref.bytes:
                return False
            return sha256_of(target) == ref.sha256

    def put(self, path: PurePosixPath, source: Path, ref: ArtifactRef) -> bool:
        """See `Place.put`; whole or not at all."""
        del ref
        target = self.root / path
        with disk_errors(target):
            if self._private:
                make_folder(target.parent)
            else:
                with as_started():
                    target.parent.mkdir(parents=True, exist_ok=True)
            with self._half() as half:
                with self._rights(), source.open("rb") as whole, half.open("xb") as file:
                    shutil.copyfileobj(whole, file, 1 << 20)
                    file.flush()
                    os.fsync(file.fileno())
                return named_once(half, target)

    def shown(self, path: PurePosixPath) -> str:
        """See `Place.shown`."""
        return str(self.root / path)

    def _rights(self) -> AbstractContextManager[None]:
        return nullcontext() if self._private else as_started()

    @contextmanager
    def _half(self) -> Generator[Path]:
        folder = self.root / UNFINISHED
        if not self._swept:
            self._swept = True
            sweep_abandoned(folder)
        with half_made(folder) as half:
            yield half
        with suppress(OSError):  # another file is under way
            folder.rmdir()


def named_once(half: Path, target: Path) -> bool:
    """Give a finished file its name; False where anything has it, which stays as it is."""
    try:
        os.link(half, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return False
        half.replace(target)
    return True


class BucketPlace:
    """A prefix of the store's bucket, beside what is kept by content.

    Args:
        bucket: as it is.
        prefix: ends in a slash.
        patience_seconds: a service that does not answer is asked again for this long.
    """

    def __init__(self, bucket: Bucket, prefix: str, patience_seconds: float) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._patient = Patient(bucket, patience_seconds, stops=True)

    def entries(self, folder: PurePosixPath) -> Sequence[tuple[str, bool]]:
        """See `Place.entries`."""
        prefix = self._prefix + (f"{folder}/" if folder.parts else "")
        return self._patient.answer(lambda: self._bucket.names(prefix))

    def holds(self, path: PurePosixPath, ref: ArtifactRef) -> bool:
        """See `Place.holds`; by the digest that stands beside the object."""
        name = f"{self._prefix}{path}"
        facts = self._patient.answer(lambda: self._bucket.facts_of(name))
        return facts is not None and facts[2] == ref.sha256

    def put(self, path: PurePosixPath, source: Path, ref: ArtifactRef) -> bool:
        """See `Place.put`; False also where the answer was lost, and asked for again."""
        name = f"{self._prefix}{path}"
        return self._patient.answer(
            lambda: self._bucket.write_once(name, source, ref.media_type, ref.sha256)
        )

    def shown(self, path: PurePosixPath) -> str:
        """See `Place.shown`."""
        return f"s3://{self._bucket.bucket}/{self._bucket.prefix}{self._prefix}{path}"
