"""What the command makes of an error that nobody foresaw."""

import errno
import os
import stat
from pathlib import Path

from safelight.cli.edge import reported
from safelight.errors import DiskFullError


def test_the_traceback_is_kept_like_that_of_a_run(volume: Path):
    try:
        {}["MPO"]
    except KeyError as error:
        known = reported(error)
    assert known.code == "UNKNOWN_ERROR"
    (report,) = (volume / "cache" / "reports").glob("*.txt")
    assert str(report) in known.remedy
    assert report.stem in known.problem
    assert "Traceback" in report.read_text()
    assert stat.S_IMODE(report.stat().st_mode) == 0o600


def test_a_full_disk_has_its_own_code():
    assert isinstance(reported(OSError(errno.ENOSPC, "No space left on device")), DiskFullError)


def test_the_latest_two_hundred_tracebacks_are_kept(volume: Path):
    folder = volume / "cache" / "reports"
    folder.mkdir(parents=True)
    for number in range(205):
        old = folder / f"old_{number:03}.txt"
        old.touch()
        os.utime(old, (number + 1, number + 1))
    reported(ValueError("one more"))
    left = sorted(path.name for path in folder.iterdir() if path.name.startswith("old_"))
    assert left == [f"old_{number:03}.txt" for number in range(6, 205)]
