"""Days of the audit log in a bucket."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from safelight.audit.log import HEAD, files, log_folder, record
from safelight.gateway.audit_copies import copy_days_over
from safelight.settings import reload_settings
from safelight.store.store import current_store
from tests.store.conftest import moto  # noqa: F401
from tests.store.servers import S3Server


def begin_day(days_ago: int) -> str:
    """A log whose only file is of an earlier day."""
    name = f"{datetime.now(UTC) - timedelta(days=days_ago):%Y-%m-%d}.jsonl"
    (old,) = files(log_folder())
    old.rename(log_folder() / name)
    head = json.loads((log_folder() / HEAD).read_bytes())
    (log_folder() / HEAD).write_text(json.dumps({**head, "file": name}))
    return name


def test_days_that_are_over_are_copied_once_and_removed_in_time(
    volume: Path,
    moto: S3Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
):
    record("job.submit", "job-1")
    yesterday = begin_day(1)
    assert copy_days_over() == 0  # a folder is the store already
    for name, value in moto.settings("studio").items():
        monkeypatch.setenv(name, value)
    reload_settings()
    current_store.cache_clear()
    assert copy_days_over() == 0  # it may be appended to
    record("job.submit", "job-2")
    assert copy_days_over() == 1
    assert copy_days_over() == 0
    backend = current_store().backend
    (key,) = backend.list("audit/")
    assert key.endswith(f"/{yesterday}")
    assert backend.read(key) == (log_folder() / yesterday).read_bytes()
    long_ago = key.replace(yesterday, "2020-01-01.jsonl")
    backend.write(long_ago, b"{}\n", "application/x-ndjson")
    assert copy_days_over() == 0
    assert backend.list("audit/") == [key]
