"""The audit log: JSON lines in `audit/` of the volume, one file a day, that only grow.

Several processes may write: each line is written under a lock, and `head.json` says which line was
the last, so that lines that are cut off at the end are missed.
"""

import errno
import json
import os
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from safelight.audit.actors import actor as acting
from safelight.audit.chain import BEGINNING, Line, read_line, sealed
from safelight.errors import DiskFullError, ForbiddenPathError, PipelineError, one_line
from safelight.private import make_folder, mask
from safelight.settings import settings

FOLDER = "audit"
HEAD = "head.json"
EXPIRED = "audit.expired"
"""Says up to which line older ones were removed when their time was over."""
HEAD_LOST = "audit.head_lost"
"""Says that nobody knows whether lines before it were cut off."""
LONGEST_DETAIL = 2000
"""Characters of one text."""


class Head(BaseModel):
    """Which line was the last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    hash: str
    file: str
    bytes: int


def log_folder() -> Path:
    """Where the log of this process's volume lies."""
    return settings().volume_root.resolve() / FOLDER


@dataclass(frozen=True)
class Entry:
    """Something that happened and is to be written."""

    event_type: str
    """What."""
    subject: str = ""
    """What it was done to."""
    details: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    """More of it; no secrets."""
    actor: str | None = None
    """Who did it; None is who acts now."""


def record(
    event_type: str,
    subject: str = "",
    details: Mapping[str, JsonValue] | None = None,
    *,
    actor: str | None = None,
) -> None:
    """Write a line; see `Entry`, and `record_all` for errors."""
    record_all([Entry(event_type, subject, details or {}, actor)])


def record_all(entries: Sequence[Entry]) -> None:
    """Write several lines; they are on the disk when this returns.

    Raises:
        DiskFullError: no room is left.
        ForbiddenPathError: the log cannot be written.
    """
    mine = _Ticket(log_folder(), [_signed(entry) for entry in entries])
    _waiting.append(mine)
    with _turn:
        if not mine.done:  # whoever had the turn before took it along
            _write_waiting()
    if mine.error is not None:
        raise mine.error


@dataclass
class _Ticket:
    """Entries that a thread waits for."""

    folder: Path
    entries: list[Entry]
    done: bool = False
    error: PipelineError | None = None


_waiting: deque[_Ticket] = deque()
_turn = Lock()
"""Of the thread that writes for all that wait: a line alone costs a wait for the disk."""


def _write_waiting() -> None:
    """Write what threads of this process wait for, that of a folder together."""
    taken: list[_Ticket] = []
    while _waiting:
        taken.append(_waiting.popleft())
    for folder in dict.fromkeys(ticket.folder for ticket in taken):
        those = [ticket for ticket in taken if ticket.folder == folder]
        error: PipelineError | None = None
        try:
            with _written(folder):
                head, file = _end(folder)
                together = [entry for ticket in those for entry in ticket.entries]
                _append(folder, _rolled(folder, head, file), together)
        except PipelineError as failed:
            error = failed
        for ticket in those:
            ticket.done, ticket.error = True, error


def _signed(entry: Entry) -> Entry:
    """The entry with who acts now, whichever thread writes it."""
    return entry if entry.actor is not None else replace(entry, actor=acting())


def files(folder: Path) -> list[Path]:
    """The files of a log, the oldest first."""
    return sorted(folder.glob("[0-9]*.jsonl"))


def read_head(folder: Path) -> Head | None:
    """Which line is said to be the last; None where nothing can be read."""
    try:
        return Head.model_validate_json((folder / HEAD).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def lines(
    folder: Path, *, about: str = "", newest: int = 0, since: datetime | None = None
) -> Iterator[Line]:
    """Lines that are as they were written, the oldest first.

    Args:
        folder: of the log.
        about: leaves out other subjects.
        newest: how many files are read, the newest ones; 0 is all.
        since: files of days before this moment are left out.
    """
    mark = json.dumps({"subject": about}, separators=(",", ":")).encode()[1:-1]
    first = "" if since is None else f"{since.astimezone(UTC):%Y-%m-%d}"
    for path in files(folder)[-newest:]:
        if path.name < first:
            continue
        with path.open("rb") as file:
            for text in file:
                if about and mark not in text:
                    continue
                line = read_line(text)
                if line is not None and (not about or line.subject == about):
                    yield line


def rights() -> int:
    """Of files of the log: as `SAFELIGHT_UMASK` says, since others of a group may write too."""
    return 0o666 & ~mask()


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Keep all others from writing meanwhile."""
    with FileLock(folder / ".lock", mode=rights()):
        yield


@contextmanager
def _written(folder: Path) -> Generator[Path]:
    try:
        make_folder(folder)
        with locked(folder):
            yield folder
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"no room is left for the audit log in {folder}", "free space"
            ) from (error)
        raise ForbiddenPathError(
            f"the audit log in {folder} cannot be written: {error.strerror}",
            "give this account the right to write there",
        ) from error


def _end(folder: Path) -> tuple[Head, Path | None]:
    """The last line, and its file; what a killed process left is set right."""
    head, found = read_head(folder), files(folder)
    if head is None:
        return (_begun_anew(folder, found[-1]), found[-1]) if found else (_NONE, None)
    path = folder / head.file
    size = path.stat().st_size if path.exists() else -1
    if size > head.bytes:
        head = _caught_up(path, head)
    return head, path


_NONE = Head(number=0, hash=BEGINNING, file="", bytes=0)


def _caught_up(path: Path, head: Head) -> Head:
    """The head after lines that were written without it; half a line is taken away."""
    with path.open("rb+") as file:
        file.seek(head.bytes)
        for text in file:
            line = read_line(text) if text.endswith(b"\n") else None
            if line is None or line.number != head.number + 1 or line.previous != head.hash:
                if not text.endswith(b"\n"):
                    file.truncate(head.bytes)
                break
            head = Head(
                number=line.number, hash=line.hash, file=path.name, bytes=head.bytes + len(text)
            )
    return head


def _begun_anew(folder: Path, path: Path) -> Head:
    """A head for a log that has lost it, and a line that says so."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    found = [line for text in whole.splitlines() if (line := read_line(text)) is not None]
    last = found[-1] if found else None
    head = Head(
        number=last.number if last else 0,
        hash=last.hash if last else BEGINNING,
        file=path.name,
        bytes=len(whole),
    )
    with path.open("rb+") as file:
        file.truncate(len(whole))
    return _append(folder, head, [Entry(HEAD_LOST)])


def _rolled(folder: Path, head: Head, path: Path | None) -> Head:
    """Begin the file of a new day, and remove those whose time is over."""
    today = f"{datetime.now(UTC):%Y-%m-%d}.jsonl"
    if path is not None and path.name >= today:  # also where the clock was set back
        return head
    head = head.model_copy(update={"file": today, "bytes": 0})
    oldest = f"{datetime.now(UTC) - timedelta(days=settings().audit_days):%Y-%m-%d}.jsonl"
    over = [old for old in files(folder) if old.name < oldest]
    last = next((line for old in reversed(over) if (line := _last(old)) is not None), None)
    if last is not None:
        # said first: who dies half way leaves lines that are said to be gone, and goes on next day
        gone: dict[str, JsonValue] = {"through": last.number, "hash": last.hash}
        head = _append(folder, head, [Entry(EXPIRED, "", gone, "retention")])
        for old in over:
            old.unlink(missing_ok=True)
    return head


def _last(path: Path) -> Line | None:
    texts = path.read_bytes().splitlines()
    return next((line for text in reversed(texts) if (line := read_line(text)) is not None), None)


def _append(folder: Path, head: Head, entries: Sequence[Entry]) -> Head:
    text, number, digest = b"", head.number, head.hash
    for entry in entries:
        number += 1
        fields: dict[str, Any] = {
            "number": number,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event_type": entry.event_type,
            "actor": _plain(acting() if entry.actor is None else entry.actor),
            "subject": _plain(entry.subject),
            "details": {name: _plain(value) for name, value in entry.details.items()},
            "previous": digest,
        }
        line, digest = sealed(fields)
        text += line
    path = folder / head.file
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, rights())
    with os.fdopen(handle, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        size = os.fstat(file.fileno()).st_size
    made = Head(number=number, hash=digest, file=path.name, bytes=size)
    half = folder / f"{HEAD}.new"
    handle = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, rights())
    with os.fdopen(handle, "wb") as file:
        file.write(made.model_dump_json().encode())
    os.replace(half, folder / HEAD)
    return made


def _plain(value: Any) -> Any:  # noqa: ANN401  (any JSON)
    return one_line(value)[:LONGEST_DETAIL] if isinstance(value, str) else value
