"""The files of a zip, none of which is ever written under a name that the zip gives it."""

import io
import re
import stat
import zipfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.batching.reading.members import (
    LeftAside,
    Members,
    aside,
    check_file_count,
    file_name,
    in_order,
    printable,
)
from safelight.errors import ForbiddenPathError, InvalidFieldValueError, InvalidMediaError
from safelight.store.disk import disk_errors
from safelight.store.store import current_store

MOST_BYTES = 16 * 2**30
"""All files of an archive unpacked."""
MOST_GROWTH, GROWS_FREELY = 200, 256 * 2**20
"""An archive that unpacks to more bytes than the second may hold at most so many times its own:
pictures and clips are compressed already, and flat bitmaps are smaller."""
LONGEST_READ = 32 * 2**20
"""Bytes that a reader takes at once; the list of an archive's files is read whole."""
PIECE = 2**20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
_NAME_IS_UTF8, _ENCRYPTED = 0x800, 0x1
_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
_DRIVE = re.compile(r"[A-Za-z]:")
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
)


class _Guarded(io.FileIO):
    """A file of which nobody takes more at once than its size can be trusted with."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or size > LONGEST_READ:
            rest = self._rest()
            size = rest if size is None or size < 0 else min(size, rest)
        if size > LONGEST_READ:
            raise InvalidFieldValueError(
                f"the archive's list of files has {size} bytes, at most {LONGEST_READ} are read",
                "split it into several batches",
            )
        return super().read(size)

    def _rest(self) -> int:
        at = self.tell()
        end = self.seek(0, io.SEEK_END)
        self.seek(at)
        return end - at


@dataclass(frozen=True)
class FileInZip:
    """A file of an archive."""

    archive: zipfile.ZipFile
    """Open."""
    entry: zipfile.ZipInfo
    """As the archive describes it."""
    name: str
    """From the archive's top."""

    def start(self, most: int) -> bytes:
        """Its first bytes."""
        try:
            with self.archive.open(self.entry) as file:
                return file.read(most)
        except _BROKEN as error:
            raise self._damaged(error) from error

    @contextmanager
    def opened(self) -> Generator[Path]:
        """A path to a copy that is gone afterwards."""
        with current_store().workspace() as folder:
            path = Path(folder) / file_name(self.name)
            with disk_errors(path), path.open("xb") as copy:
                self._unpack(copy)
            yield path

    def _unpack(self, copy: io.BufferedWriter) -> None:
        try:
            file = self.archive.open(self.entry)
        except _BROKEN as error:
            raise self._damaged(error) from error
        with file:
            while True:
                try:
                    piece = file.read(PIECE)  # never more in all than the archive declares
                except _BROKEN as error:
                    raise self._damaged(error) from error
                if not piece:
                    return
                copy.write(piece)

    def _damaged(self, error: Exception) -> InvalidMediaError:
        return InvalidMediaError(
            f"{self.name} cannot be unpacked: {str(error)[:200]}", "make the archive again"
        )


def starts_as_zip(start: bytes) -> bool:
    """Whether a file may be a zip, by its first bytes; spreadsheets are zips too."""
    return start.startswith(_STARTS)


@contextmanager
def zip_members(handle: int, title: str) -> Generator[Members | None]:
    """The files of an archive, which is open until the `with` ends; None for a spreadsheet.

    Args:
        handle: of the archive, open to read.
        title: its name.

    Raises:
        InvalidFieldValueError: damaged, encrypted, or too much comes out of it.
        ForbiddenPathError: a name leads out of it.
    """
    with _Guarded(handle, closefd=False) as file:
        size = file.seek(0, io.SEEK_END)
        try:
            archive = zipfile.ZipFile(file)
        except _BROKEN as error:
            raise InvalidFieldValueError(
                f"{title} is no zip that can be read: {str(error)[:200]}", "make it again"
            ) from error
        with archive:
            first = next((entry.filename for entry in archive.infolist()), "")
            if first == "mimetype" or "[Content_Types].xml" in archive.NameToInfo:
                yield None
                return
            yield _members(archive, title, size)


def _members(archive: zipfile.ZipFile, title: str, size: int) -> Members:
    entries = archive.infolist()
    check_file_count(len(entries), title)
    found: list[FileInZip] = []
    left: dict[str, LeftAside] = {}
    for entry in entries:
        parts = _parts(_decoded_name(entry), title)
        name = printable("/".join(parts))
        if (why := aside(parts)) is not None:
            shown = printable(why.name)
            left[shown] = LeftAside(shown, why.why)
        elif stat.S_ISLNK(entry.external_attr >> 16):
            left[name] = LeftAside(name, "a link")
        elif not entry.is_dir():
            found.append(FileInZip(archive, entry, name))
    _check(found, title, size)
    return in_order(title, found, list(left.values()))


def _decoded_name(entry: zipfile.ZipInfo) -> str:
    """The name of an entry; many programs write UTF-8 and forget to say so."""
    if entry.flag_bits & _NAME_IS_UTF8:
        return entry.orig_filename
    try:
        return entry.orig_filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return entry.orig_filename


def _parts(name: str, title: str) -> tuple[str, ...]:
    plain = name.replace("\\", "/")
    parts = tuple(part for part in plain.split("/") if part not in ("", "."))
    if plain.startswith("/") or _DRIVE.match(plain) or ".." in parts or "\0" in plain or not parts:
        raise ForbiddenPathError(
            f"{title}: the name {name[:200]!r} leads out of the archive",
            "make the archive again from a folder, without paths that lead out of it",
        )
    return parts


def _check(found: list[FileInZip], title: str, size: int) -> None:
    locked = next((one.name for one in found if one.entry.flag_bits & _ENCRYPTED), None)
    if locked is not None:
        raise InvalidFieldValueError(
            f"{title}: {locked} is encrypted", "make the archive again without a password"
        )
    packed = next((one for one in found if one.entry.compress_type not in _METHODS), None)
    if packed is not None:
        raise InvalidFieldValueError(
            f"{title}: {packed.name} is compressed by method {packed.entry.compress_type}",
            "make the archive again with deflate, or without compression",
        )
    together = sum(one.entry.file_size for one in found)
    if together > MOST_BYTES or (together > GROWS_FREELY and together > MOST_GROWTH * size):
        raise InvalidFieldValueError(
            f"{title} has {size} bytes and unpacks to {together}; at most {MOST_BYTES} are "
            f"unpacked, and at most {MOST_GROWTH} times its own beyond {GROWS_FREELY}",
            "unpack it yourself and give the folder, or split it into several batches",
        )
