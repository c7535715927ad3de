"""Copies days of the audit log that are over into the bucket, where the store is one.

A bucket cannot be appended to, so today's lines lie on the volume alone. `safelight audit verify`
reads a folder into which the files of one log were fetched as it reads the volume's.
"""

import re
import secrets
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from safelight.audit.log import FOLDER, files, log_folder
from safelight.digests import sha256_of
from safelight.settings import settings
from safelight.store.store import current_store

NAME = "name"
"""File in the log's folder that holds what it is called in the bucket."""
LINES = "application/x-ndjson"


def copy_days_over() -> int:
    """Copy what is over and not there yet, and remove what was kept long enough; how many copied.

    Raises:
        PipelineError: the bucket does not answer.
    """
    if not settings().store:
        return 0  # the log lies in the store already
    folder = log_folder()
    over = files(folder)[:-1]
    if not over:
        return 0
    prefix = f"{FOLDER}/{_name_of(folder)}/"
    backend = current_store().backend
    there = {key.removeprefix(prefix) for key in backend.list(prefix)}
    missing = [path for path in over if path.name not in there]
    for path in missing:
        backend.write(prefix + path.name, path, LINES, sha256_of(path))
    oldest = f"{datetime.now(UTC) - timedelta(days=settings().audit_days):%Y-%m-%d}.jsonl"
    for name in there:
        if name < oldest:
            backend.delete(prefix + name)
    return len(missing)


def _name_of(folder: Path) -> str:
    """What a log is called among those of other volumes: its machine, and a number."""
    path = folder / NAME
    try:
        found = path.read_text()
    except FileNotFoundError:
        machine = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:60].strip("-")
        found = f"{machine or 'machine'}-{secrets.token_hex(4)}"
        path.write_text(found)
    return found
