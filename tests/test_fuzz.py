"""Damaged weights, configs, records and requests end well or with a code, and soon."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


def fuzz(seed: int, count: int) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", str(seed), str(count)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_some_tries():
    seen = fuzz(seed=1, count=150)
    assert sum(seen.values()) == 150
    assert sum(count for name, count in seen.items() if name.endswith(": taken")) > 10
    assert sum(count for name, count in seen.items() if "INVALID_FIELD_VALUE" in name) > 50


@pytest.mark.soak
def test_five_thousand_tries():
    assert sum(fuzz(seed=2, count=5000).values()) == 5000
