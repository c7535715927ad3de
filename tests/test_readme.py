"""The commands of the README do what it says."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.documents import commands
from tests.served import CHECKOUT


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_main_job_of_the_readme(tmp_path: Path):
    assert commands("README.md") == ["make run", "make test"]
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    done = subprocess.run(
        ["make", "run"],
        cwd=CHECKOUT,
        env={**environment, "VOLUME_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    results = tmp_path / "outputs" / "main-job"
    assert sorted(path.suffix for path in results.iterdir()) == [".mp4"] * 2 + [".png"] * 4
    for path in results.iterdir():
        assert path.stat().st_size > 10_000
        assert str(path) in done.stdout
