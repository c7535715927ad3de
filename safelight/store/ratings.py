"""What people think of files: one to five stars, or rejected; a small record in the store for each.

The value stands in the record's name, so that a list of names tells all of them. A rating keeps no
file from retention, and goes with it.
"""

import re
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from safelight.account import person
from safelight.errors import InvalidFieldValueError
from safelight.store.stars import require_sha256
from safelight.store.store import Store

PREFIX = "outputs/ratings/"
"""Of the store's keys."""
REJECTED, NONE, BEST = -1, 0, 5
VALUES = (REJECTED, *range(1, BEST + 1))
"""What a record can say."""
_NAME = re.compile(r"([0-9a-f]{64})\.(-1|[1-5])\.json")


class Rating(BaseModel):
    """Who rated a file, and when; the name of the record says which file, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    since: str
    """ISO 8601 with its offset."""
    by: str
    """Whose rating it is."""


def rate(store: Store, sha256: str, value: int, by: str | None = None) -> None:
    """Rate a file anew.

    Args:
        store: that has it.
        sha256: of its bytes.
        value: 1 to 5; -1 rejects it, 0 takes its rating away.
        by: whose rating it is; None is the account of this process.

    Raises:
        InvalidFieldValueError: that is no sha256, or no rating.
    """
    require_sha256(sha256)
    if value not in (*VALUES, NONE):
        raise InvalidFieldValueError(
            f"rating is {value}, expected 1 to {BEST}, {REJECTED} or {NONE}", "correct rating"
        )
    if value != NONE:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        record = Rating(since=since, by=by or person())
        store.write_record(_key(sha256, value), record.model_dump_json().encode())
    for other in VALUES:
        if other != value:
            store.backend.delete(_key(sha256, other))


def ratings(store: Store) -> dict[str, int]:
    """All ratings, by the sha256 of files."""
    named = (_NAME.fullmatch(key.removeprefix(PREFIX)) for key in store.backend.list(PREFIX))
    return {each[1]: int(each[2]) for each in named if each}


def _key(sha256: str, value: int) -> str:
    return f"{PREFIX}{sha256}.{value}.json"
