"""A short campaign; `make chaos` runs the long one."""

from pathlib import Path

import pytest

from tests.chaos.campaign import Pace, run_campaign

FAULTS, SEED = 60, 20


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_faults_lose_nothing_and_repeat_nothing(tmp_path: Path):
    report = run_campaign(Pace(FAULTS, SEED, apart_seconds=(0.2, 1.6)), tmp_path)
    assert not report.violations, "\n".join([report.table(), *report.violations])
    assert report.faults.total() == FAULTS
    assert report.ends["Completed"] > 0
