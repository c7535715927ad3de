"""Artifacts kept by content, with the decoded pixels of the current run in memory."""

import hashlib
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from safelight.digests import sha256_of
from safelight.errors import ChecksumMismatchError, InvalidMediaError
from safelight.settings import settings
from safelight.store.artifact import EXTENSIONS, ArtifactRef
from safelight.store.backend import Backend
from safelight.store.local import LocalFolder
from safelight.store.s3 import Bucket
from safelight.store.scratch import sweep
from safelight.store.uploading import Uploads

Pixels = NDArray[np.uint8]
SCHEME = "store:"


class Store:
    """Content-addressed artifacts over a backend."""

    def __init__(
        self, backend: Backend, scratch: Path, pixel_bytes: int, *, remote: bool = False
    ) -> None:
        self.backend = backend
        """Where the bytes lie."""
        self.scratch = scratch
        """Local folder for downloads and half-made videos."""
        self._uploads = Uploads(backend) if remote else None
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

        Bytes that are stored already are not written again, unless their size shows damage.
        """
        digest = sha256_of(source)
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
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
            kept = source if isinstance(source, bytes) else self._scratch_copy(source, ref)
            self._uploads.send(key, kept, media_type, size)
        elif self.backend.size(key) != size:
            self.backend.write(key, source, media_type)
        if pixels is not None:
            self.remember(ref, pixels)
        return ref

    def read(self, ref: ArtifactRef) -> bytes:
        """The artifact's bytes, checked against its sha256."""
        data = self._read(key_of(ref))
        if hashlib.sha256(data).hexdigest() != ref.sha256:
            raise _altered(ref)
        return data

    def fetch(self, ref: ArtifactRef) -> Path:
        """A local file with the artifact's bytes, checked; treat it as read-only."""
        target = self._scratch_path(ref)
        if self._uploads is not None and target.is_file() and sha256_of(target) == ref.sha256:
            target.touch()  # used just now: the last to be swept
            return target
        waiting = self._uploads.on_its_way(key_of(ref)) if self._uploads else None
        if isinstance(waiting, bytes):
            path = _written(waiting, target)
        else:
            path = self.backend.fetch(key_of(ref), target)
        if sha256_of(path) != ref.sha256:
            raise _altered(ref)
        return path

    def remember(self, ref: ArtifactRef, pixels: Pixels) -> None:
        """Keep decoded pixels for the next stage, the oldest dropped when memory is full."""
        kept = pixels.view()
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

    def link(self, ref: ArtifactRef, seconds: int = 3600) -> str:
        """A link a browser can open."""
        return self.backend.link(key_of(ref), seconds)

    def settle(self) -> None:
        """Wait until everything put so far is durable.

        Raises:
            PipelineError: an upload failed; its records were dropped, so the stage runs again.
        """
        if self._uploads is not None:
            self._uploads.settle()

    def workspace(self) -> tempfile.TemporaryDirectory[str]:
        """A scratch folder that is gone when its `with` ends."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=f"work-{os.getpid()}-", dir=self.scratch)

    def sweep(self) -> None:
        """Remove what killed processes left in the scratch folder, and old downloads."""
        sweep(self.scratch)

    def _read(self, key: str) -> bytes:
        waiting = self._uploads.on_its_way(key) if self._uploads else None
        if waiting is None:
            return self.backend.read(key)
        return waiting if isinstance(waiting, bytes) else waiting.read_bytes()

    def _scratch_path(self, ref: ArtifactRef) -> Path:
        self.scratch.mkdir(parents=True, exist_ok=True)
        return self.scratch / f"{ref.sha256}{ref.extension}"

    def _scratch_copy(self, source: Path, ref: ArtifactRef) -> Path:
        """The file under a name of our own, so that the caller may delete his."""
        target = self._scratch_path(ref)
        with tempfile.TemporaryDirectory(prefix=f"work-{os.getpid()}-", dir=self.scratch) as folder:
            copy = Path(folder) / target.name
            try:
                os.link(source, copy)
            except OSError:  # another file system
                shutil.copyfile(source, copy)
            os.replace(copy, target)
        return target


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


@lru_cache(maxsize=1)
def current_store() -> Store:
    """The store that the settings name, opened once per process."""
    known = settings()
    root = known.volume_root.resolve()
    scratch = root / "cache" / "scratch"
    pixel_bytes = known.pixel_memory_mib * 2**20
    sweep(scratch)
    if not known.store:
        return Store(LocalFolder(root), scratch, pixel_bytes)
    bucket, _, prefix = known.store.removeprefix("s3://").partition("/")
    remote = Bucket(
        bucket,
        prefix,
        endpoint_url=known.s3_endpoint_url,
        region=known.s3_region,
        access_key=known.s3_access_key,
        secret_key=known.s3_secret_key,
        path_style=known.s3_path_style,
    )
    return Store(remote, scratch, pixel_bytes, remote=True)


def _written(data: bytes, target: Path) -> Path:
    handle, name = tempfile.mkstemp(prefix=f"work-{os.getpid()}-", dir=target.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.replace(name, target)
    return target


def _altered(ref: ArtifactRef) -> ChecksumMismatchError:
    return ChecksumMismatchError(
        f"stored bytes of {ref.uri} do not have sha256 {ref.sha256}",
        "run the flow again; the damaged file is replaced",
    )
