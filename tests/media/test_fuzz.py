"""Damaged files of all formats open or are refused with a code, in bounded time and memory."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tries(folder: Path, seed: int, count: int) -> Counter[str]:
    """How often what came; fails with what came that should not."""
    module = ("-W", "error::UserWarning", "-m", "tests.media.fuzzing")
    ran = subprocess.run(
        [sys.executable, *module, str(folder), str(seed), str(count)],
        cwd=ROOT,
        env=os.environ | {"VOLUME_ROOT": str(folder / "volume")},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = ran.stdout.splitlines()
    assert ran.returncode == 0, f"ended by {ran.returncode} in {lines[-1:]}: {ran.stderr[-2000:]}"
    assert not (wrong := [line for line in lines if line.startswith("wrong")]), "\n".join(wrong)
    came = Counter(line.removeprefix("came ") for line in lines if line.startswith("came"))
    assert came.total() == count
    return came


@pytest.mark.slow
def test_damaged_files_open_or_are_refused_with_a_code(tmp_path: Path) -> None:
    came = tries(tmp_path, seed=11, count=200)
    assert came["opened"] >= 20  # so that what lies behind opening is tried too
    assert came["INVALID_FIELD_VALUE"] >= 60


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_two_thousand_damaged_files_open_or_are_refused_with_a_code(tmp_path: Path) -> None:
    tries(tmp_path, seed=12, count=2000)
