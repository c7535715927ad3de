"""Results together as one zip: stored, not packed, so that every byte has its place beforehand.

The headers are made once, by the standard library, and kept; what lies between them are the files
as the store has them. So any part of the zip can be sent without the rest, by any process, and two
downloads of the same results are the same bytes.
"""

import hashlib
import io
import json
import os
import zipfile
from base64 import b64encode
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path, PurePosixPath

from pydantic import Base64Bytes, BaseModel, ConfigDict, ValidationError

from safelight.errors import MissingFileError
from safelight.exports.facts import Result
from safelight.exports.placing import NOT_MADE
from safelight.exports.single_files import Resumable, check_file, write_on
from safelight.provenance.batches import BatchReport
from safelight.store.artifact import ArtifactRef
from safelight.store.disk import disk_errors
from safelight.store.store import current_store, key_of

HEADERS = "cache/zips/"
MARK = "safelight batch "
"""Begins the comment of a zip of ours, before the key of its batch."""
CHUNK = 1 << 20
FIRST_YEAR, LAST_YEAR = 1980, 2107
"""That a zip knows."""
_RIGHTS = 0o100644 << 16


class _Header(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    at: int
    data: Base64Bytes


class _Headers(BaseModel):
    """All bytes of a zip that are no file's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    parts: tuple[_Header, ...]


@dataclass(frozen=True)
class _Piece:
    at: int
    source: bytes | ArtifactRef
    size: int


class Zip:
    """A zip that nobody has written."""

    def __init__(self, pieces: Sequence[_Piece], size: int, digest: str) -> None:
        self._pieces = pieces
        self._starts = [piece.at for piece in pieces]
        self.size = size
        """Bytes."""
        self.digest = digest
        """Equal for two zips when all their bytes are."""

    def require_all(self) -> None:
        """Look whether every file is there, before the first byte is sent.

        Raises:
            MissingFileError: one was deleted from the store.
        """
        for piece in self._pieces:
            ref = piece.source
            if isinstance(ref, ArtifactRef) and not current_store().holds(key_of(ref), ref.bytes):
                raise MissingFileError(
                    f"{ref.uri} is no longer in the store", "run the batch again, with the same key"
                )

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Its bytes from `start` to before `stop`; each file is compared with its sha256 first."""
        stop = self.size if stop is None else stop
        at = max(0, bisect_right(self._starts, start) - 1)
        for piece in self._pieces[at:]:
            if piece.at >= stop:
                return
            first, last = max(start - piece.at, 0), min(stop - piece.at, piece.size)
            if first < last:
                yield from _bytes_of(piece.source, first, last)


def _bytes_of(source: bytes | ArtifactRef, first: int, last: int) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source[first:last]
        return
    path = current_store().fetch(source)
    with disk_errors(path), path.open("rb") as file:
        file.seek(first)
        while first < last:
            chunk = file.read(min(CHUNK, last - first))
            if not chunk:
                raise MissingFileError(f"{path} became shorter", "run the batch again")
            first += len(chunk)
            yield chunk


def plan_zip(
    files: Sequence[tuple[PurePosixPath, Result]], report: BatchReport | None = None
) -> Zip:
    """The zip of some results.

    Args:
        files: each with its path in the zip.
        report: of the batch that they come from; requests without a result are named in a text.
    """
    missed = _not_made(report)
    comment = f"{MARK}{report.batch}" if report is not None else ""
    listed = [[str(path), each.ref.sha256, _moment(each)] for path, each in files]
    digest = hashlib.sha256(json.dumps([listed, missed.decode(), comment]).encode()).hexdigest()
    headers = _known_headers(digest)
    if headers is None:
        headers = _made_headers(files, missed, comment)
        current_store().write_record(f"{HEADERS}{digest}.json", headers.model_dump_json().encode())
    return Zip([*_pieces(headers, files)], headers.size, digest)


def _pieces(headers: _Headers, files: Sequence[tuple[PurePosixPath, Result]]) -> Iterator[_Piece]:
    refs = iter([result.ref for _, result in files if result.ref.bytes])
    at = 0
    for header in headers.parts:
        if header.at > at:
            ref = next(refs)
            yield _Piece(at, ref, ref.bytes)
        yield _Piece(header.at, header.data, len(header.data))
        at = header.at + len(header.data)


def _moment(result: Result) -> tuple[int, int, int, int, int, int]:
    known = result.moment.astimezone(UTC)
    if not FIRST_YEAR <= known.year <= LAST_YEAR:
        return (FIRST_YEAR, 1, 1, 0, 0, 0)
    return (known.year, known.month, known.day, known.hour, known.minute, known.second)


def _not_made(report: BatchReport | None) -> bytes:
    lines = [
        f"{outcome.where}: {outcome.state}"
        + (f", {outcome.error.code}: {outcome.error.problem}" if outcome.error else "")
        for outcome in (report.each() if report else ())
        if not outcome.results
    ]
    unfinished = report.requests - report.tally().ended if report else 0
    lines += [f"{unfinished} requests did not run"] if unfinished else []
    return "".join(f"{line}\n" for line in lines).encode()


def _known_headers(digest: str) -> _Headers | None:
    with suppress(MissingFileError, ValidationError):
        return _Headers.model_validate_json(current_store().read_record(f"{HEADERS}{digest}.json"))
    return None


class _Recorder(io.RawIOBase):
    """Takes what zipfile writes; of the files it keeps nothing but their length."""

    def __init__(self) -> None:
        self.header_bytes: dict[int, bytes] = {}
        self.passing = False
        """Whether what comes is a file's own bytes."""
        self._at = 0
        self._end = 0

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._end)[whence]
        return self._at

    def write(self, data: bytes) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not self.passing and data:
            self.header_bytes[self._at] = bytes(data)  # a header is written again at its place
        self._at += len(data)
        self._end = max(self._end, self._at)
        return len(data)


def _made_headers(
    files: Sequence[tuple[PurePosixPath, Result]], missed: bytes, comment: str
) -> _Headers:
    recorder = _Recorder()
    with zipfile.ZipFile(recorder, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = comment.encode()
        for path, result in files:
            info = _info(str(path), _moment(result))
            info.file_size = result.ref.bytes
            source = current_store().fetch(result.ref)
            with disk_errors(source), source.open("rb") as file, archive.open(info, "w") as entry:
                recorder.passing = True
                while chunk := file.read(CHUNK):
                    entry.write(chunk)
                recorder.passing = False
        if missed:
            archive.writestr(_info(NOT_MADE, (FIRST_YEAR, 1, 1, 0, 0, 0)), missed)
    parts = tuple(
        _Header(at=at, data=b64encode(data)) for at, data in sorted(recorder.header_bytes.items())
    )
    return _Headers(size=recorder.tell(), parts=parts)


def _info(path: str, moment: tuple[int, int, int, int, int, int]) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(path, moment)
    info.create_system = 3  # the same on every machine
    info.external_attr = _RIGHTS
    return info


def check_zip(file: Path, where: str) -> None:
    """Refuse a place for a zip before anything is made for it.

    Raises:
        ForbiddenPathError: its folder is none, or something lies there that is no batch's zip.
    """
    check_file(file, where, "zip", lambda there: _comment_of(there).startswith(MARK))


def write_zip(planned: Resumable, report: BatchReport, file: Path) -> Path:
    """Write a zip, whole or not at all; one that was cut goes on where it was.

    It takes the place of a zip of the same batch; anything else that lies there stays.

    Returns:
        Where it lies: `file`, or beside it with -2, -3 and so on.
    """
    mark = f"{MARK}{report.batch}"
    return write_on(file, planned, lambda there: _comment_of(there) == mark, _is_whole)


def _is_whole(file: Path) -> bool:
    """Whether every file of a zip has its checksum."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError):
        return False


def _comment_of(file: Path) -> str:
    """The comment of a zip; empty where the file is none."""
    if file.is_symlink() or not file.is_file():
        return ""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.comment.decode(errors="replace")
    except (zipfile.BadZipFile, OSError):
        return ""
