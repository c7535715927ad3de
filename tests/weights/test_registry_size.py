"""A hundred thousand models in a thousand folders."""

import time
from itertools import pairwise
from pathlib import Path

import pytest

from safelight.settings import reload_settings
from safelight.weights.registry import ModelRegistry
from tests.weights.many import FILES, FOLDERS, fill

FIRST_SECONDS, AGAIN_SECONDS = 30.0, 3.0


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_hundred_thousand_files_are_scanned_in_seconds(volume: Path):
    reload_settings()
    fill(volume / "models")
    registry = ModelRegistry()
    ends = [time.perf_counter()]
    first = registry.scan(hashes=False)
    ends.append(time.perf_counter())
    again = registry.scan(hashes=False)
    ends.append(time.perf_counter())
    assert (first.models, first.new) == (FOLDERS * FILES, FOLDERS * FILES)
    assert (again.new, again.changed, again.gone) == (0, 0, 0)
    took = [after - before for before, after in pairwise(ends)]
    assert took[0] < FIRST_SECONDS, f"the first took {took[0]:.1f} s, the second {took[1]:.1f} s"
    assert took[1] < AGAIN_SECONDS, f"the second took {took[1]:.1f} s"
    named = registry.get_model("d7/same-4")
    assert named.file_path == volume / "models" / "d7" / "same-4.safetensors"
