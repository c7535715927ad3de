"""How old things in a store are, and how they are kept from being taken for old."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from stat import S_ISREG

from safelight.store.backend import Backend
from safelight.store.local import UNFINISHED, LocalFolder
from safelight.store.patience import Patient
from safelight.store.s3 import Bucket

RECENT_SECONDS = 12 * 3600.0
"""An object that is put again is written again only when it is older than this."""


@dataclass(frozen=True)
class Kept:
    """Something in the store."""

    key: str
    """Where."""
    bytes: int
    """How long it is."""
    changed: float
    """When it was written last, in seconds of the epoch."""


@dataclass(frozen=True)
class HalfSent:
    """An upload in parts that nobody finished."""

    name: str
    """In the bucket, with the store's prefix."""
    upload: str
    """The service's id of it."""
    begun: float
    """When, in seconds of the epoch."""


def plain(backend: Backend) -> Backend:
    """The store itself, without who waits for it."""
    return backend.inner if isinstance(backend, Patient) else backend


def everything(backend: Backend, folders: tuple[str, ...]) -> Iterator[Kept]:
    """All that is kept below some prefixes, in no order."""
    if isinstance(backend, LocalFolder):
        for folder in folders:
            yield from _below(backend, folder)
    elif isinstance(backend, Bucket):
        for name, size, changed in backend.objects():
            if name.startswith(folders):
                yield Kept(name, size, changed / 1e9)
    else:
        raise TypeError(f"{type(backend).__name__} does not tell ages")


def still_as_old(backend: Backend, kept: Kept) -> bool:
    """Whether nobody wrote or asked for it since it was looked at."""
    if isinstance(backend, LocalFolder):
        try:
            return backend.path(kept.key).stat().st_mtime <= kept.changed
        except FileNotFoundError:
            return False
    if isinstance(backend, Bucket):
        facts = backend.facts_of(kept.key)
        return facts is not None and facts[1] / 1e9 <= kept.changed
    return False


def refreshed(backend: Backend, key: str) -> bool:
    """Make what is kept under a key count as written now, since somebody puts it again.

    Returns:
        Whether it is there, so that it need not be written.
    """
    if isinstance(backend, Patient):
        inner = backend.inner
        return backend.answer(lambda: refreshed(inner, key))
    if isinstance(backend, LocalFolder):
        try:
            os.utime(backend.path(key))
        except FileNotFoundError:
            return False
        except PermissionError:  # another user's; whoever may not touch it may not remove it
            return True
    elif isinstance(backend, Bucket):
        facts = backend.facts_of(key)
        # written once more, which makes it new
        return facts is not None and time.time() - facts[1] / 1e9 < RECENT_SECONDS
    return True


def half_sent(bucket: Bucket) -> Iterator[HalfSent]:
    """Uploads in parts below the store's prefix that nobody finished yet."""
    pages = bucket.client.get_paginator("list_multipart_uploads")
    for page in pages.paginate(Bucket=bucket.bucket, Prefix=bucket.prefix):
        for each in page.get("Uploads", ()):
            yield HalfSent(each["Key"], each["UploadId"], each["Initiated"].timestamp())


def give_up(bucket: Bucket, sent: HalfSent) -> None:
    """Have the service forget the parts of an upload."""
    bucket.client.abort_multipart_upload(Bucket=bucket.bucket, Key=sent.name, UploadId=sent.upload)


def _below(backend: LocalFolder, folder: str) -> Iterator[Kept]:
    for parent, folders, names in os.walk(backend.root / folder):
        if UNFINISHED in folders:
            folders.remove(UNFINISHED)
        for name in names:
            path = os.path.join(parent, name)
            with suppress(FileNotFoundError):
                facts = os.lstat(path)
                if S_ISREG(facts.st_mode):
                    key = os.path.relpath(path, backend.root).replace(os.sep, "/")
                    yield Kept(key, facts.st_size, facts.st_mtime)
