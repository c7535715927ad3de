"""Fetches one file: goes on where it stopped, hashes as it comes, ends whole or not at all."""

import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Protocol, cast

import httpx

from safelight.errors import (
    ChecksumMismatchError,
    DiskFullError,
    DownloadFailedError,
    ForbiddenPathError,
    RateLimitExceededError,
)
from safelight.private import make_folder
from safelight.weights.asking import PassingError, Web, passing, require_good
from safelight.weights.sources import Source

TRIES = 6
"""In a row that bring less than `ENOUGH`, until a fetch is given up."""
ENOUGH = 2**20
"""Bytes; who brings so much has not failed."""
FIRST_SECONDS, LONGEST_SECONDS = 0.5, 15.0
"""The pause between two tries doubles from the first to the longest."""
LEFT_FREE = 64 * 2**20
"""Bytes that a fetch leaves on the disk."""
PIECE = 2**20
OnBytes = Callable[[int, int | None], None]
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_WHOLE = re.compile(r"bytes \*/(\d+)")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _StartAgainError(Exception):
    """What is there of the file is of no use."""


class Digest(Protocol):
    """What hashlib makes."""

    def update(self, data: bytes, /) -> None:
        """Go on with these bytes."""
        ...

    def hexdigest(self) -> str:
        """Of all so far."""
        ...


@dataclass
class Part:
    """What is there of a file so far, in a folder of its own beside what the server said of it."""

    file: Path
    """It has the name that the whole file will have, since names decide how weights are read."""
    length: int = 0
    """Bytes that are there."""
    total: int | None = None
    """Bytes that there will be."""
    validator: str | None = None
    """The server's name for this content: goes on only with the same."""
    digest: Digest = field(default_factory=hashlib.sha256)
    """Of what is there."""

    @property
    def _note(self) -> Path:
        return self.file.parent / "said.json"

    def load(self) -> None:
        """Take up what an earlier process left."""
        make_folder(self.file.parent)
        try:
            said = cast("dict[str, object]", json.loads(self._note.read_text()))
            validator, total = said.get("validator"), said.get("total")
        except (OSError, ValueError, AttributeError):
            self.drop()
            return
        self.validator = validator if isinstance(validator, str) else None
        self.total = total if isinstance(total, int) else None
        if self.file.is_file() and not self.file.is_symlink():
            with self.file.open("rb") as there:
                while piece := there.read(PIECE):
                    self.digest.update(piece)
                    self.length += len(piece)

    def begin(self, total: int | None, validator: str | None) -> None:
        """Note what a server says of the file that it begins to send."""
        self.total, self.validator = total, validator
        self._note.write_text(json.dumps({"total": total, "validator": validator}))

    def drop(self) -> None:
        """Forget all that is there."""
        self.file.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self.length, self.total, self.validator = 0, None, None
        self.digest = hashlib.sha256()

    def remove(self) -> None:
        """Take the folder away too."""
        self.drop()
        shutil.rmtree(self.file.parent, ignore_errors=True)


@dataclass(frozen=True)
class Fetch:
    """How a file is fetched."""

    web: Web
    on_bytes: OnBytes
    """Called with how much is there and how much there will be."""
    sleep: Callable[[float], None] = time.sleep
    """Waits between two tries."""

    def run(self, source: Source, part: Part) -> str:
        """Fetch all of a file.

        Args:
            source: where it is.
            part: what is there already.

        Returns:
            The sha256 of the file, which is the one that the source names, where it names one.

        Raises:
            ChecksumMismatchError: it has another sha256 or size; nothing of it is kept.
            DiskFullError: there is no room; what is there is kept.
            DownloadFailedError: it broke off too often; what is there is kept.
            PipelineError: as `Web` and `require_good`.
        """
        with disk_refusals(part.file):
            part.load()
            self._tried(source, part)
            found = part.digest.hexdigest()
            if source.sha256 is not None and found != source.sha256:
                part.remove()
                raise ChecksumMismatchError(
                    f"{source.address} has sha256 {found}, expected {source.sha256}; it is deleted",
                    "fetch it again, or from its maker; when it comes again, it is another file",
                )
        return found

    def _tried(self, source: Source, part: Part) -> None:
        failed, seconds = 0, FIRST_SECONDS
        while True:
            before = part.length
            try:
                self._once(source, part)
            except _StartAgainError as error:
                part.drop()
                problem: DownloadFailedError | RateLimitExceededError = DownloadFailedError(
                    f"{source.address} cannot be had whole: {error}", "try again later"
                )
            except (PassingError, RateLimitExceededError) as error:
                problem = error
            else:
                return
            failed = 0 if part.length - before >= ENOUGH else failed + 1
            if failed >= TRIES:
                raise type(problem)(
                    f"{problem.problem} ({TRIES} times; {part.length} bytes are there)",
                    problem.remedy,
                ) from problem
            seconds = FIRST_SECONDS if failed == 0 else min(2 * seconds, LONGEST_SECONDS)
            self.sleep(seconds)

    def _once(self, source: Source, part: Part) -> None:
        if part.total is not None and part.length == part.total:
            return
        if part.length and (part.validator is None or (part.total or 0) < part.length):
            part.drop()
        headers: dict[str, str] = {}
        if part.length and part.validator is not None:
            headers = {"Range": f"bytes={part.length}-", "If-Range": part.validator}
        with self.web.asked(source.url, source.token, headers, source.address) as response:
            self._require_begun(response, source, part)
            self._require_room(part)
            with part.file.open("ab") as file:
                os.truncate(file.fileno(), part.length)
                self._receive(response, source, part, file.fileno())
        if part.total is None:  # no length was told: whoever ends the answer properly is believed
            part.begin(part.length, part.validator)
        if part.length != part.total:
            raise passing(source.address, EOFError(f"{part.length} of {part.total} bytes came"))

    def _receive(self, response: httpx.Response, source: Source, part: Part, handle: int) -> None:
        try:
            for piece in response.iter_raw():
                if part.total is not None and part.length + len(piece) > part.total:
                    raise _StartAgainError(f"more than its {part.total} bytes came")
                _write(handle, piece)
                part.digest.update(piece)
                part.length += len(piece)
                self.on_bytes(part.length, part.total)
        except httpx.HTTPError as error:
            raise passing(source.address, error) from error
        os.fsync(handle)

    def _require_begun(self, response: httpx.Response, source: Source, part: Part) -> None:
        """Compare what a server begins to send with what is there."""
        status = response.status_code
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _StartAgainError("its server has no such part")
        require_good(response, source.token, source.address)
        kind = response.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml"):
            raise DownloadFailedError(
                f"{source.address} is a page, no file",
                "give the address of the file itself; where one has to log in, set a token",
            )
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise DownloadFailedError(
                f"{source.address} comes packed, though it was asked for as it is",
                "fetch it from another address",
            )
        total = _total_of(response)
        validator = _validator(response)
        if status == HTTPStatus.PARTIAL_CONTENT:
            span = _RANGE.fullmatch(response.headers.get("content-range", ""))
            begins = span is not None and int(span[1]) == part.length
            if not part.length or not begins or total != part.total:
                raise _StartAgainError("its server sends another part than was asked for")
            if validator not in (None, part.validator):
                raise _StartAgainError("it has changed on its server")
            return
        if part.length:
            part.drop()
        if source.size is not None and total is not None and total != source.size:
            raise passing(source.address, ValueError(f"has {total} bytes, expected {source.size}"))
        part.begin(total if total is not None else source.size, validator)

    def _require_room(self, part: Part) -> None:
        if part.total is None:
            return
        needed = part.total - part.length
        free = shutil.disk_usage(part.file.parent).free
        if free < needed + LEFT_FREE:
            raise DiskFullError(
                f"{needed} bytes are to come and {free} are free in {part.file.parent}",
                "free space, or set SAFELIGHT_MODELS_DIR to a larger disk",
            )


def _write(handle: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(handle, rest) :]


def _total_of(response: httpx.Response) -> int | None:
    span = _RANGE.fullmatch(response.headers.get("content-range", ""))
    if span is not None:
        return int(span[3]) if span[3].isdigit() else None
    length = response.headers.get("content-length", "")
    return int(length) if length.isdigit() else None


def _validator(response: httpx.Response) -> str | None:
    """What tells one content from another without doubt: a weak ETag does not."""
    tag = response.headers.get("etag", "")
    if tag and not tag.startswith("W/"):
        return tag
    return response.headers.get("last-modified") or None


@contextmanager
def disk_refusals(path: Path) -> Generator[None]:
    """The operating system's refusals as ours.

    Raises:
        DiskFullError: no room, or the quota is used up.
        ForbiddenPathError: anything else.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(
                f"no room left to write {path}",
                "free space, or set SAFELIGHT_MODELS_DIR to a larger disk; then run it again",
            ) from error
        raise ForbiddenPathError(
            f"{path}: {error.strerror}", "give this user read and write rights on the models folder"
        ) from error
