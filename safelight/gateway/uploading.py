"""Uploads that go on where they broke off: what has come lies in a folder until all is there.

An upload is a folder of the volume: what it is to be, how far it is known to be right, and its
bytes. So it is there after the gateway was killed; what was written and not yet known to be right
is cut off by the next part.
"""

import base64
import binascii
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.to_thread import run_sync
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safelight.digests import sha256_of
from safelight.errors import InvalidFieldValueError, PipelineError, RateLimitExceededError
from safelight.gateway.files import Stored, kept_file
from safelight.gateway.problems import (
    MissingUploadError,
    OffsetConflictError,
    PartDamagedError,
    UploadBusyError,
    UploadDamagedError,
)
from safelight.private import make_folder
from safelight.settings import settings
from safelight.store.disk import disk_errors

KEPT_SECONDS = 24 * 3600.0
"""How long an upload is kept that nobody goes on with."""
MOST_UPLOADS = 200
"""Unfinished ones at a time."""
STEP_BYTES = 8 * 2**20
"""So many bytes are known to be right at a time, where a part has no checksum of its own."""
ALGORITHMS = ("sha256", "sha1")
"""Of checksums of parts; the protocol asks for sha1."""
ID = re.compile(r"[0-9a-f]{32}")


class Upload(BaseModel):
    """An upload that is under way, or done."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str
    """Names it."""
    length: int = Field(ge=1)
    """Bytes that it will have."""
    metadata: dict[str, str] = Field(default_factory=dict[str, str])
    """What the caller said of it."""
    stored: Stored | None = None
    """What became of it."""


class Uploads:
    """All of them, below the volume."""

    def __init__(self) -> None:
        self._busy: set[str] = set()

    @property
    def _root(self) -> Path:
        return settings().volume_root / "cache" / "gateway" / "uploads"

    def create(self, length: int, metadata: dict[str, str]) -> Upload:
        """Begin an upload.

        Raises:
            RateLimitExceededError: too many are unfinished.
            DiskFullError: no room is left.
        """
        self.sweep()
        unfinished = sum(1 for folder in self._folders() if (folder / "bytes").exists())
        if unfinished >= MOST_UPLOADS:
            raise RateLimitExceededError(
                f"{unfinished} uploads are unfinished, at most {MOST_UPLOADS} may be",
                "finish or end one, or wait",
            )
        made = Upload(id=secrets.token_hex(16), length=length, metadata=metadata)
        folder = self._root / made.id
        with disk_errors(folder):
            make_folder(folder)
            (folder / "bytes").touch()
            _write(folder / "offset", b"0")
            _write(folder / "upload.json", made.model_dump_json().encode())
        return made

    def find(self, upload_id: str) -> tuple[Upload, int]:
        """An upload, and how many of its bytes have come.

        Raises:
            MissingUploadError: there is none.
        """
        folder = self._root / upload_id
        try:
            if not ID.fullmatch(upload_id):
                raise FileNotFoundError(upload_id)
            found = Upload.model_validate_json((folder / "upload.json").read_bytes())
            if found.stored is not None:
                return found, found.length
            return found, int((folder / "offset").read_text())
        except (OSError, ValueError, ValidationError) as error:
            raise MissingUploadError(
                f"there is no upload {upload_id[:40]!r}", "begin a new one"
            ) from error

    async def add(
        self,
        upload_id: str,
        offset: int,
        chunks: AsyncIterator[bytes],
        checksum: tuple[str, bytes] | None,
    ) -> tuple[Upload, int]:
        """Add what a caller sends; the upload and how many bytes it has then.

        Args:
            upload_id: of the upload.
            offset: where the caller thinks that it goes on.
            chunks: the bytes.
            checksum: algorithm and digest of this part.

        Raises:
            OffsetConflictError: it goes on elsewhere.
            PartDamagedError: other bytes came than the checksum says; none of them is kept.
            UploadDamagedError: the whole is not what its metadata says.
            InvalidMediaError: the whole is no picture, video or sound; it is removed.
            InvalidFieldValueError: more bytes came than the upload has.
        """
        async with self._held(upload_id):
            found, known = await run_sync(self.find, upload_id)
            if offset != known:
                raise OffsetConflictError(
                    f"the upload has {known} bytes, the part begins at {offset}",
                    f"go on at {known}",
                )
            if found.stored is None:
                known = await self._write(found, known, chunks, checksum)
            if known == found.length and found.stored is None:
                found = await run_sync(self._finish, found)
            return found, known

    def end(self, upload_id: str) -> None:
        """Remove an upload.

        Raises:
            MissingUploadError: there is none.
            UploadBusyError: a part of it is coming.
        """
        self.find(upload_id)
        if upload_id in self._busy:
            raise _busy(upload_id)
        shutil.rmtree(self._root / upload_id, ignore_errors=True)

    def sweep(self) -> None:
        """Remove uploads that nobody went on with."""
        old = time.time() - KEPT_SECONDS
        for folder in self._folders():
            newest = max((each.stat().st_mtime for each in folder.iterdir()), default=0.0)
            if newest < old and folder.name not in self._busy:
                shutil.rmtree(folder, ignore_errors=True)

    def _folders(self) -> list[Path]:
        return [each for each in self._root.iterdir()] if self._root.is_dir() else []

    @asynccontextmanager
    async def _held(self, upload_id: str) -> AsyncGenerator[None]:
        if upload_id in self._busy:
            raise _busy(upload_id)
        self._busy.add(upload_id)
        try:
            yield
        finally:
            self._busy.discard(upload_id)

    async def _write(
        self,
        upload: Upload,
        known: int,
        chunks: AsyncIterator[bytes],
        checksum: tuple[str, bytes] | None,
    ) -> int:
        folder = self._root / upload.id
        digest = hashlib.new(checksum[0]) if checksum else None
        written = known
        with disk_errors(folder):
            async with await anyio.open_file(folder / "bytes", "r+b") as file:
                await file.truncate(known)  # what was never known to be right
                await file.seek(known)
                try:
                    async for chunk in chunks:
                        _require_room(upload, written + len(chunk))
                        await file.write(chunk)
                        written += len(chunk)
                        if digest is not None:
                            digest.update(chunk)
                        elif written - known >= STEP_BYTES:
                            known = await _known(file, folder, written)
                except BaseException:
                    if digest is None:  # whatever came before the connection broke counts
                        with anyio.CancelScope(shield=True):
                            await _known(file, folder, written)
                    raise
                if digest is not None and checksum is not None and digest.digest() != checksum[1]:
                    raise PartDamagedError(
                        "the part has another checksum than Upload-Checksum says",
                        f"send it again from {known}",
                    )
                return await _known(file, folder, written)

    def _finish(self, upload: Upload) -> Upload:
        """Look into the whole, and keep it; what is refused is removed."""
        folder = self._root / upload.id
        path, wanted = folder / "bytes", upload.metadata.get("sha256")
        try:
            if wanted is not None and sha256_of(path) != wanted:
                raise UploadDamagedError(
                    f"the file has another sha256 than {wanted[:64]}", "send it again"
                )
            stored = kept_file(path)
        except PipelineError as error:
            if not error.transient:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        done = upload.model_copy(update={"stored": stored})
        _write(folder / "upload.json", done.model_dump_json().encode())
        path.unlink()
        return done


def _require_room(upload: Upload, written: int) -> None:
    if written > upload.length:
        raise InvalidFieldValueError(
            f"more than the {upload.length} bytes of Upload-Length came",
            "begin a new upload with its true length",
        )


async def _known(file: "anyio.AsyncFile[bytes]", folder: Path, written: int) -> int:
    await file.flush()
    await run_sync(os.fsync, file.wrapped.fileno())
    await run_sync(_write, folder / "offset", str(written).encode())
    return written


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing, whenever the process is killed."""
    half = path.with_suffix(".half")
    half.write_bytes(content)
    os.replace(half, path)


def _busy(upload_id: str) -> UploadBusyError:
    return UploadBusyError(f"a part of upload {upload_id} is coming", "wait until it has come")


def read_metadata(header: str) -> dict[str, str]:
    """What Upload-Metadata says: names with values in base64.

    Raises:
        InvalidFieldValueError: it is none.
    """
    found: dict[str, str] = {}
    for pair in filter(None, (each.strip() for each in header.split(","))):
        name, _, value = pair.partition(" ")
        try:
            found[name] = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise InvalidFieldValueError(
                f"Upload-Metadata has {pair[:80]!a}, expected a name and a value in base64",
                "correct the header Upload-Metadata",
            ) from error
    return found


def read_checksum(header: str) -> tuple[str, bytes]:
    """What Upload-Checksum says: an algorithm, and a digest in base64.

    Raises:
        InvalidFieldValueError: it is none.
    """
    name, _, value = header.strip().partition(" ")
    try:
        digest = base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if name not in ALGORITHMS or len(digest) != hashlib.new(name).digest_size:
        raise InvalidFieldValueError(
            f"Upload-Checksum is {header[:80]!a}, expected {' or '.join(ALGORITHMS)} and a digest "
            "in base64",
            "correct the header Upload-Checksum",
        )
    return name, digest
