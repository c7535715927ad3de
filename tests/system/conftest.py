"""Fixtures: the whole system, once a session."""

from collections.abc import Iterator

import pytest

from tests.system.whole import System, whole_system


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    """Started once."""
    with whole_system() as started:
        yield started
