"""A short campaign; `make chaos` runs the long one."""

from pathlib import Path
from typing import get_args

import pytest

from tests.chaos.campaign import Pace, run_campaign
from tests.chaos.faults import Fault

FAULTS, SEED = 14, 81710
"""Few, and each kind of fault comes at least once."""


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_faults_lose_nothing_and_repeat_nothing(tmp_path: Path, database: Path):
    report = run_campaign(
        Pace(FAULTS, SEED, apart_seconds=(0.2, 1.2), sleep_seconds=(1, 3), silence_seconds=(1, 2)),
        tmp_path,
        database,
    )
    assert not report.violations, "\n".join([report.table(), *report.violations])
    assert report.faults.total() == FAULTS
    assert set(report.faults) == set(get_args(Fault))
    assert report.ends["Completed"] > 0
