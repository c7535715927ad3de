"""Opens what a watch was told by paths or addresses."""

import os
from pathlib import Path

from safelight.errors import ForbiddenPathError, InvalidFieldValueError
from safelight.settings import settings
from safelight.store.places import BucketPlace, DiskPlace, Place
from safelight.store.store import EXPORTS, open_bucket
from safelight.watching.bucket import BucketSource
from safelight.watching.source import FolderSource, Source

S3 = "s3://"


def open_watched(folder: str, target: str, *, private: bool) -> tuple[Source, Place]:
    """A folder or prefix to watch, and the place for results.

    Args:
        folder: path, links followed, or `s3://BUCKET/PREFIX`.
        target: likewise.
        private: results are for their owner alone.

    Raises:
        InvalidFieldValueError: they are one, or the target holds the folder.
        ForbiddenPathError: there is no such folder.
    """
    if _same_or_below(folder, target):
        raise InvalidFieldValueError(
            f"{folder} is watched, and results are to go to {target}",
            "name a target beside the watched folder, or below it",
        )
    within = target[len(folder) :].strip("/") if _same_or_below(target, folder) else ""
    source: Source
    if folder.startswith(S3):
        bucket = open_bucket(settings(), folder)
        source = BucketSource(bucket, (f"{within}/",) if within else ())
    else:
        if not Path(folder).is_dir():
            raise ForbiddenPathError(f"{folder} is no folder", "name a folder to watch")
        source = FolderSource(Path(folder), (Path(target),) if within else ())
    if target.startswith(S3):
        patience = settings().store_patience_seconds
        return source, BucketPlace(open_bucket(settings(), target), "", patience)
    return source, DiskPlace(Path(target), private=private)


def allowed_to_change(location: str) -> str:
    """A folder or prefix that a run may write to, as it was given, links followed.

    Args:
        location: absolute, from the volume root, or `s3://BUCKET/PREFIX`.

    Raises:
        ForbiddenPathError: no operator has allowed it.
    """
    known = settings()
    root = known.volume_root.resolve()
    allowed = [str(root / EXPORTS)]
    for each in known.watch_roots.split(","):
        if each.strip():
            allowed.append(each.strip() if each.strip().startswith(S3) else _real(each.strip()))
    found = location if location.startswith(S3) else _real(str(root / location))
    if any(_same_or_below(found, each) for each in allowed):
        return found
    raise ForbiddenPathError(
        f"{location[:200]} is none of what runs may write to: {', '.join(allowed)}",
        "name a folder below one of them, or add it to SAFELIGHT_WATCH_ROOTS",
    )


def _real(path: str) -> str:
    return os.path.realpath(path)


def _same_or_below(location: str, above: str) -> bool:
    return f"{location.rstrip('/')}/".startswith(f"{above.rstrip('/')}/")
