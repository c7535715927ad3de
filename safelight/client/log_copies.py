"""Copies the audit log into the bucket as it grows, where the store is one, and looks at the copy.

A bucket cannot be appended to. So what a day has grown by lies in parts, named by the byte at which
they begin, each written once; when the day is over, the whole file takes their place.
"""

import re
import secrets
import socket
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from safelight.audit.log import FOLDER, files, log_folder, read_head
from safelight.audit.verifying import Verdict, verify
from safelight.digests import sha256_of
from safelight.errors import MissingFileError
from safelight.settings import settings
from safelight.store.backend import Backend
from safelight.store.store import current_store

NAME = "name"
"""File in the log's folder that holds what it is called in the bucket."""
LINES = "application/x-ndjson"
_DAY = re.compile(r"\d{4}-\d\d-\d\d\.jsonl")
_PART = re.compile(r"(\d{4}-\d\d-\d\d)/(\d{15})\.jsonl")


def copy_log() -> int:
    """Copy what is not there yet, and remove what was kept long enough; how many files written.

    Raises:
        PipelineError: the bucket does not answer.
    """
    if not settings().store:
        return 0  # the log lies in the store already
    folder = log_folder()
    here = files(folder)
    if not here:
        return 0
    prefix = f"{FOLDER}/{_name_of(folder)}/"
    backend = current_store().backend
    there = {key.removeprefix(prefix) for key in backend.list(prefix)}
    count = 0
    for path in here[:-1]:
        if path.name not in there:
            backend.write(prefix + path.name, path, LINES, sha256_of(path))
            count += 1
        for part in _parts(there, path.stem):
            backend.delete(prefix + part)
    count += _copy_growth(backend, prefix, here[-1], _parts(there, here[-1].stem))
    oldest = f"{datetime.now(UTC) - timedelta(days=settings().audit_days):%Y-%m-%d}.jsonl"
    kept = {path.name for path in here}
    for name in there:
        if _DAY.fullmatch(name) and name < oldest and name not in kept:
            backend.delete(prefix + name)
    return count


def verify_copy(known: tuple[int, str] | None = None) -> Verdict:
    """Look through the copy in the bucket, and whether the volume's log still goes on from it.

    Args:
        known: number and hash of a line that must be in the copy.

    Raises:
        MissingFileError: the store is no bucket, or has no copy of this volume's log.
        PipelineError: the bucket does not answer.
    """
    folder = log_folder()
    if not settings().store:
        raise MissingFileError(
            "the store is a folder, in which the audit log itself lies", "leave out --store"
        )
    prefix = f"{FOLDER}/{_named(folder)}/"
    with TemporaryDirectory() as made:
        fetched = Path(made)
        broken = _fetch(prefix, fetched)
        copied = verify(fetched, known, copied=True)
    findings = [*broken, *(f"copy, {finding}" for finding in copied.findings)]
    if copied.head is not None:
        number, _, digest = copied.head.partition(":")
        own = verify(folder, (int(number), digest))
        findings += [f"volume, {finding}" for finding in own.findings]
    return Verdict(intact=not findings, lines=copied.lines, head=copied.head, findings=findings)


def _parts(there: set[str], day: str) -> list[str]:
    return sorted(name for name in there if (found := _PART.fullmatch(name)) and found[1] == day)


def _copy_growth(backend: Backend, prefix: str, path: Path, parts: list[str]) -> int:
    """Copy whole lines that a day has grown by, as one part; how many parts."""
    head = read_head(path.parent)
    if head is None or head.file != path.name:
        return 0  # it is just being set right
    begin = 0
    if parts:
        begin = int(parts[-1][-21:-6]) + (backend.size(prefix + parts[-1]) or 0)
    if head.bytes <= begin:
        return 0
    with path.open("rb") as file:
        file.seek(begin)
        grown = file.read(head.bytes - begin)
    backend.write(f"{prefix}{path.stem}/{begin:015}.jsonl", grown, LINES)
    return 1


def _fetch(prefix: str, target: Path) -> list[str]:
    """Put the days of a copy together; what of it does not fit together."""
    backend = current_store().backend
    there = {key.removeprefix(prefix) for key in backend.list(prefix)}
    if not there:
        raise MissingFileError(
            f"nothing is stored below {prefix}", "have a gateway run, which copies the log"
        )
    whole = {name for name in there if _DAY.fullmatch(name)}
    for name in whole:
        (target / name).write_bytes(backend.read(prefix + name))
    found: list[str] = []
    for name in sorted(there - whole):
        part = _PART.fullmatch(name)
        if part is None:
            found.append(f"copy, {name} is no part of a log")
        elif f"{part[1]}.jsonl" not in whole:
            with (target / f"{part[1]}.jsonl").open("ab") as file:
                if file.tell() != int(part[2]):
                    found.append(f"copy, {name} begins elsewhere than at byte {file.tell()}")
                file.write(backend.read(prefix + name))
    return found


def _named(folder: Path) -> str:
    with suppress(FileNotFoundError):
        return (folder / NAME).read_text()
    raise MissingFileError(
        f"{folder} was never copied to a bucket", "have a gateway run, which copies the log"
    )


def _name_of(folder: Path) -> str:
    """What a log is called among those of other volumes: its machine, and a number."""
    with suppress(MissingFileError):
        return _named(folder)
    machine = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:60].strip("-")
    made = f"{machine or 'machine'}-{secrets.token_hex(4)}"
    (folder / NAME).write_text(made)
    return made
