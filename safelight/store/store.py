"""Artifacts kept by content, with the decoded pixels of the current run in memory."""

import hashlib
import os
import secrets
import shutil
import tempfile
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from safelight.digests import sha256_of
from safelight.errors import ChecksumMismatchError, InvalidMediaError
from safelight.pixels import Pixels
from safelight.private import make_folder
from safelight.settings import Settings, settings
from safelight.store.aging import refreshed
from safelight.store.artifact import EXTENSIONS, ArtifactRef
from safelight.store.backend import Backend
from safelight.store.background import AGAIN_SECONDS, Uploads
from safelight.store.disk import disk_errors, half_made, work_prefix
from safelight.store.local import LocalFolder
from safelight.store.owners import sweep_claims
from safelight.store.patience import Patient
from safelight.store.places import BucketPlace, DiskPlace, Place
from safelight.store.s3 import Bucket
from safelight.store.scratch import CheckedFiles, sweep, trim, used_now

SCHEME = "store:"
EXPORTS = "exports"
"""Folder of the volume, or prefix of the bucket, for copies under names that people chose."""


class Store:
    """Content-addressed artifacts over a backend."""

    def __init__(
        self,
        backend: Backend,
        scratch: Path,
        pixel_bytes: int,
        *,
        remote: bool = False,
        patience_seconds: float = 0.0,
    ) -> None:
        self.backend = Patient(backend, patience_seconds, stops=True) if remote else backend
        """Where the bytes lie."""
        self.scratch = scratch
        """Local folder for downloads and half-made videos."""
        self._uploads: Uploads | None = None
        if remote:
            again = AGAIN_SECONDS if patience_seconds else ()  # who does not wait at all
            patient = Patient(backend, patience_seconds, stops=False)
            self._uploads = Uploads(patient, again_seconds=again)
        self._checked = CheckedFiles()
        self._pixel_bytes = pixel_bytes
        self._pixels: OrderedDict[str, Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def put(
        self,
        source: Path | bytes,
        media_type: str,
        *,
        width: int | None = None,
        height: int | None = None,
        frames: int | None = None,
        fps: float | None = None,
        metadata: dict[str, JsonValue] | None = None,
        pixels: Pixels | None = None,
        folder: Literal["outputs", "uploads"] = "outputs",
    ) -> ArtifactRef:
        """Keep bytes or a file; `pixels`, if given, are what it decodes to.

        A remote store gets the bytes in the background; the caller may delete the file at once.
        What is stored already is not written again, unless its size shows damage.

        Raises:
            MissingFileError: there is no such file.
            DiskFullError: no room is left.
            StoreUnavailableError: the store did not answer; a remote one says so in `settle`.
        """
        kept = source
        if isinstance(source, Path) and self._uploads is not None:
            kept = self._own(source)
        with disk_errors(source if isinstance(source, Path) else self.scratch):
            digest = sha256_of(kept)
            size = len(kept) if isinstance(kept, bytes) else kept.stat().st_size
        key = f"{folder}/{digest[:2]}/{digest}{EXTENSIONS.get(media_type, '.bin')}"
        ref = ArtifactRef(
            uri=SCHEME + key,
            sha256=digest,
            media_type=media_type,
            bytes=size,
            width=width,
            height=height,
            frames=frames,
            fps=fps,
            metadata=metadata or {},
        )
        if self._uploads is not None:
            if isinstance(kept, Path):
                with suppress(OSError):  # no hard links here: the next `fetch` downloads it
                    self._scratch_path(ref).hardlink_to(kept)
            self._uploads.send(key, kept, media_type, digest)
        elif self.backend.size(key) != size or not refreshed(self.backend, key):
            self.backend.write(key, source, media_type, digest)
        if pixels is not None:
            self.remember(ref, pixels)
        return ref

    def read(self, ref: ArtifactRef) -> bytes:
        """The artifact's bytes.

        Raises:
            MissingFileError: nothing is stored there.
            ChecksumMismatchError: the stored bytes are damaged.
        """
        data = self._read(key_of(ref))
        if hashlib.sha256(data).hexdigest() != ref.sha256:
            raise _altered(ref)
        return data

    def fetch(self, ref: ArtifactRef) -> Path:
        """A local file with the artifact's bytes; treat it as read-only.

        Raises:
            MissingFileError: nothing is stored there.
            ChecksumMismatchError: the stored bytes are damaged.
            DiskFullError: no room for the download.
        """
        key = key_of(ref)
        target = self._scratch_path(ref)
        if self._uploads is None:
            path = self.backend.fetch(key, target)
            with disk_errors(path):
                if not self._checked.intact(path, ref.sha256):
                    raise _altered(ref)
            return path
        with disk_errors(target), half_made(self.scratch) as half:
            if self._downloaded(target, ref):
                return target
            self._copy_to(half, key)
            if sha256_of(half) != ref.sha256:
                raise _altered(ref)
            os.replace(half, target)
        trim(self.scratch)
        return target

    def remember(self, ref: ArtifactRef, pixels: Pixels) -> None:
        """Keep decoded pixels for the next stage, the oldest dropped when memory is full."""
        # a part of a larger array would keep all of that one in memory
        kept = pixels.view() if pixels.flags.owndata else pixels.copy()
        kept.flags.writeable = False
        with self._lock:
            self._pixels[ref.sha256] = kept
            self._pixels.move_to_end(ref.sha256)
            while sum(p.nbytes for p in self._pixels.values()) > self._pixel_bytes:
                self._pixels.popitem(last=False)

    def remembered(self, ref: ArtifactRef) -> Pixels | None:
        """Decoded pixels, read-only, if they are still in memory."""
        with self._lock:
            if ref.sha256 in self._pixels:
                self._pixels.move_to_end(ref.sha256)
            return self._pixels.get(ref.sha256)

    def read_record(self, key: str) -> bytes:
        """Small bytes under a key of the caller's choice, such as a Prefect result."""
        return self._read(key)

    def write_record(self, key: str, content: bytes) -> None:
        """Keep small bytes; they are never there before an artifact that was put before them."""
        if self._uploads is not None:
            self._uploads.record(key, content)
        else:
            self.backend.write(key, content, "application/json")

    def holds(self, key: str, size: int) -> bool:
        """Whether an artifact of this size is stored, or on its way."""
        waiting = self._uploads.on_its_way(key) if self._uploads else None
        return waiting is not None or self.backend.size(key) == size

    def link(self, ref: ArtifactRef, seconds: int = 3600, saved_as: str = "") -> str:
        """A link a browser can open; `saved_as` is the header Content-Disposition of its answer."""
        return self.backend.link(key_of(ref), seconds, saved_as)

    def link_ends(self, seconds: int) -> str:
        """How long a link of `seconds` that is made now is good; empty when it does not end."""
        return self.backend.link_ends(seconds)

    def settle(self) -> None:
        """Wait until everything put so far is durable.

        Raises:
            PipelineError: an upload failed; its records were dropped, so the stage runs again.
            StopRequestedError: the run was asked to stop; the rest goes on in the background.
        """
        if self._uploads is not None:
            self._uploads.settle()

    def workspace(self) -> tempfile.TemporaryDirectory[str]:
        """A scratch folder that is gone when its `with` ends."""
        make_folder(self.scratch)
        return tempfile.TemporaryDirectory(prefix=work_prefix(), dir=self.scratch)

    def sweep(self) -> None:
        """Remove what killed processes left in the scratch folder, and old downloads."""
        sweep(self.scratch)

    def _read(self, key: str) -> bytes:
        waiting = self._uploads.on_its_way(key) if self._uploads else None
        if isinstance(waiting, bytes):
            return waiting
        if waiting is not None:
            with suppress(FileNotFoundError):  # it has just arrived
                return waiting.read_bytes()
        return self.backend.read(key)

    def _scratch_path(self, ref: ArtifactRef) -> Path:
        return self.scratch / f"{ref.sha256}{ref.extension}"

    def _downloaded(self, target: Path, ref: ArtifactRef) -> bool:
        with suppress(FileNotFoundError):  # never there, or swept just now
            if self._checked.intact(target, ref.sha256):
                used_now(target)
                return True
        return False

    def _copy_to(self, target: Path, key: str) -> None:
        waiting = self._uploads.on_its_way(key) if self._uploads else None
        if isinstance(waiting, bytes):
            target.write_bytes(waiting)
            return
        if waiting is not None:
            with suppress(FileNotFoundError):  # it has just arrived
                shutil.copyfile(waiting, target)
                return
        self.backend.fetch(key, target)

    def _own(self, source: Path) -> Path:
        """The file under a name of our own, which the upload removes in the end."""
        with disk_errors(source):
            make_folder(self.scratch)
            own = self.scratch / f"{work_prefix()}{secrets.token_hex(8)}"
            if not source.is_symlink() and source.resolve().is_relative_to(self.scratch):
                with suppress(OSError):  # no hard links here
                    own.hardlink_to(source)
                    return own
            try:  # other people's files may change later, so a link would not do
                shutil.copyfile(source, own)
            except BaseException:
                own.unlink(missing_ok=True)
                raise
        return own


def key_of(ref: ArtifactRef) -> str:
    """The store key a reference names.

    Raises:
        InvalidMediaError: the uri is not one of a store's.
    """
    if not ref.uri.startswith(SCHEME):
        raise InvalidMediaError(
            f"uri {ref.uri!r} does not start with {SCHEME!r}", "pass a reference a store returned"
        )
    return ref.uri.removeprefix(SCHEME)


class _Current:
    """The one store of the process; `lru_cache` would open two for two threads at once."""

    def __init__(self) -> None:
        self._store: Store | None = None
        self._lock = threading.Lock()

    def __call__(self) -> Store:
        """The store that the settings name, opened at the first call."""
        with self._lock:
            if self._store is None:
                self._store = open_store(settings())
            return self._store

    def cache_clear(self) -> None:
        """Open it again at the next call; for a process whose settings change."""
        with self._lock:
            self._store = None


current_store = _Current()


def open_store(known: Settings) -> Store:
    """Open the store that given settings name; `current_store` is that of the process."""
    root = known.volume_root.resolve()
    scratch = root / "cache" / "scratch"
    pixel_bytes = known.pixel_memory_mib * 2**20
    sweep(scratch)
    sweep_claims()
    if not known.store:
        return Store(LocalFolder(root), scratch, pixel_bytes)
    patience = known.store_patience_seconds
    return Store(
        open_bucket(known, known.store),
        scratch,
        pixel_bytes,
        remote=True,
        patience_seconds=patience,
    )


def open_bucket(known: Settings, url: str) -> Bucket:
    """The bucket and prefix of an `s3://` address, with the keys of given settings."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return Bucket(
        bucket,
        prefix,
        endpoint_url=known.s3_endpoint_url,
        region=known.s3_region,
        access_key=known.s3_access_key,
        secret_key=known.s3_secret_key,
        path_style=known.s3_path_style,
        public_url=known.s3_public_url,
        encryption=known.s3_encryption,
        kms_key=known.s3_kms_key,
    )


def open_exports(known: Settings) -> Place:
    """The place for copies under names of people's choice, beside the store of given settings."""
    if not known.store:
        return DiskPlace(known.volume_root.resolve() / EXPORTS, private=True)
    return BucketPlace(open_bucket(known, known.store), f"{EXPORTS}/", known.store_patience_seconds)


def _altered(ref: ArtifactRef) -> ChecksumMismatchError:
    return ChecksumMismatchError(
        f"stored bytes of {ref.uri} do not have sha256 {ref.sha256}",
        f"delete {key_of(ref)} from the store, then run the flow again: its stage runs again",
    )
