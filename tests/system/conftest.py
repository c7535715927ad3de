"""Fixtures: the whole system, gone when its tests are over."""

from collections.abc import Iterator

import pytest

from tests.system.whole import System, whole_system


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """Started once."""
    with whole_system() as started:
        yield started
