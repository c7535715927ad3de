"""Artifacts kept by content, with the decoded pixels of the current run in memory."""

import hashlib
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from safelight.errors import ChecksumMismatchError, InvalidMediaError
from safelight.settings import settings
from safelight.store.artifact import EXTENSIONS, ArtifactRef
from safelight.store.backend import Backend
from safelight.store.local import LocalFolder

Pixels = NDArray[np.uint8]
SCHEME = "store:"


class Store:
    """Content-addressed artifacts over a backend."""

    def __init__(self, backend: Backend, scratch: Path, pixel_bytes: int) -> None:
        self.backend = backend
        self.scratch = scratch
        """Local folder for downloads and half-made videos."""
        self._pixel_bytes = pixel_bytes
        self._pixels: dict[str, Pixels] = {}

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
        if self.backend.size(key) != size:
            self.backend.write(key, source, media_type)
        if pixels is not None:
            self.remember(ref, pixels)
        return ref

    def read(self, ref: ArtifactRef) -> bytes:
        """The artifact's bytes, checked against its sha256."""
        data = self.backend.read(key_of(ref))
        if hashlib.sha256(data).hexdigest() != ref.sha256:
            raise _altered(ref)
        return data

    def fetch(self, ref: ArtifactRef) -> Path:
        """A local file with the artifact's bytes, checked; treat it as read-only."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        path = self.backend.fetch(key_of(ref), self.scratch / f"{ref.sha256}{ref.extension}")
        if sha256_of(path) != ref.sha256:
            raise _altered(ref)
        return path

    def remember(self, ref: ArtifactRef, pixels: Pixels) -> None:
        """Keep decoded pixels for the next stage, the oldest dropped when memory is full."""
        kept = pixels.view()
        kept.flags.writeable = False
        self._pixels[ref.sha256] = kept
        while sum(p.nbytes for p in self._pixels.values()) > self._pixel_bytes:
            del self._pixels[next(iter(self._pixels))]

    def remembered(self, ref: ArtifactRef) -> Pixels | None:
        """Decoded pixels, read-only, if they are still in memory."""
        return self._pixels.get(ref.sha256)

    def read_record(self, key: str) -> bytes:
        """Small bytes under a key of the caller's choice, such as a Prefect result."""
        return self.backend.read(key)

    def write_record(self, key: str, content: bytes) -> None:
        """Keep small bytes; durable only after every artifact that was put before them."""
        self.backend.write(key, content, "application/json")

    def link(self, ref: ArtifactRef, seconds: int = 3600) -> str:
        """A link a browser can open."""
        return self.backend.link(key_of(ref), seconds)

    def settle(self) -> None:
        """Wait until everything put so far is durable."""

    def workspace(self) -> tempfile.TemporaryDirectory[str]:
        """A scratch folder that is gone when its `with` ends."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix="work-", dir=self.scratch)


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


def sha256_of(source: Path | bytes) -> str:
    """Hex sha256 of bytes or of a file."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=1)
def current_store() -> Store:
    """The store that the settings name, opened once per process."""
    root = settings().volume_root.resolve()
    return Store(LocalFolder(root), root / "cache" / "scratch", settings().pixel_memory_mib * 2**20)


def _altered(ref: ArtifactRef) -> ChecksumMismatchError:
    return ChecksumMismatchError(
        f"stored bytes of {ref.uri} do not have sha256 {ref.sha256}",
        "run the flow again; the damaged file is replaced",
    )
