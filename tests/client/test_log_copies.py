"""The audit log in a bucket: as it grows, day by day, and whether the copy and the log agree."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from safelight.audit.log import HEAD, files, log_folder, record
from safelight.client.log_copies import copy_log, verify_copy
from safelight.errors import MissingFileError
from safelight.settings import reload_settings
from safelight.store.backend import Backend
from safelight.store.store import current_store
from tests.store.conftest import moto  # noqa: F401
from tests.store.servers import S3Server


@pytest.fixture
def bucket(
    volume: Path,
    moto: S3Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Backend]:
    """An empty bucket as the store; its audit log lies on the volume."""
    for name, value in moto.settings("studio").items():
        monkeypatch.setenv(name, value)
    reload_settings()
    current_store.cache_clear()
    backend = current_store().backend
    for key in backend.list("audit/"):
        backend.delete(key)
    yield backend
    current_store.cache_clear()


def begin_day(days_ago: int) -> str:
    """A log whose only file is of an earlier day."""
    name = f"{datetime.now(UTC) - timedelta(days=days_ago):%Y-%m-%d}.jsonl"
    (old,) = files(log_folder())
    old.rename(log_folder() / name)
    head = json.loads((log_folder() / HEAD).read_bytes())
    (log_folder() / HEAD).write_text(json.dumps({**head, "file": name}))
    return name


def test_a_folder_holds_the_log_itself(volume: Path):
    record("job.submit", "job-1")
    assert copy_log() == 0
    with pytest.raises(MissingFileError, match="the store is a folder"):
        verify_copy()


def test_what_a_day_grows_by_is_copied_and_then_the_whole_day(bucket: Backend):
    with pytest.raises(MissingFileError, match="never copied"):
        verify_copy()
    for number in range(3):
        record("job.submit", f"job-{number}")
        assert copy_log() == 1
        assert copy_log() == 0
    parts = bucket.list("audit/")
    assert len(parts) == 3
    (today,) = files(log_folder())
    assert b"".join(bucket.read(part) for part in parts) == today.read_bytes()
    yesterday = begin_day(1)
    renamed = [part.replace(today.stem, yesterday.removesuffix(".jsonl")) for part in parts]
    for before, after in zip(parts, renamed, strict=True):  # as they would be called today
        bucket.write(after, bucket.read(before), "application/x-ndjson")
        bucket.delete(before)
    record("job.submit", "job-4")
    assert copy_log() == 2
    day, part = bucket.list("audit/")
    assert day.endswith(f"/{yesterday}")
    assert bucket.read(day) == (log_folder() / yesterday).read_bytes()
    assert part.endswith(f"/{today.stem}/{0:015}.jsonl")
    verdict = verify_copy()
    assert (verdict.intact, verdict.lines) == (True, 4), verdict.findings
    long_ago = day.replace(yesterday, "2020-01-01.jsonl")
    bucket.write(long_ago, b"{}\n", "application/x-ndjson")
    assert copy_log() == 0
    assert long_ago not in bucket.list("audit/")


def test_a_copy_that_was_changed_and_a_log_that_was_made_anew_are_found(bucket: Backend):
    for number in range(3):
        record("job.submit", f"job-{number}")
        copy_log()
    record("job.submit", "not copied yet")
    assert verify_copy().intact
    parts = bucket.list("audit/")
    kept = bucket.read(parts[1])
    bucket.write(parts[1], kept.replace(b"job-1", b"job-9"), "application/x-ndjson")
    assert "is not as it was written" in str(verify_copy().findings)
    bucket.delete(parts[1])
    assert "begins elsewhere" in str(verify_copy().findings)
    bucket.write(parts[1], kept, "application/x-ndjson")
    assert verify_copy().intact
    for path in (*files(log_folder()), log_folder() / HEAD):
        path.unlink()
    for number in range(4):  # a whole new chain, which nobody could tell from the volume alone
        record("job.submit", f"another-{number}")
    found = verify_copy().findings
    assert any(one.startswith("volume, line 3, which is known,") for one in found), found
