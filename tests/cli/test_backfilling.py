"""What is no name of a deployment is refused before any server is asked."""

from datetime import UTC, datetime

import pytest

from safelight.cli.backfilling import backfill
from safelight.errors import InvalidFieldValueError

DAY = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("name", ["", "a/b/c", "/", "a/", "/b", "[/red]\x1b[31m/x/y"])
def test_a_name_that_is_none_is_refused(name: str):
    with pytest.raises(InvalidFieldValueError, match="expected FLOW/NAME") as caught:
        backfill(name, DAY, DAY)
    assert caught.value.problem.isprintable()
