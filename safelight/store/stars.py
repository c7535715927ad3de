"""Files that people want to keep, whatever their age: a small record in the store for each."""

import re
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field

from safelight.account import person
from safelight.errors import InvalidFieldValueError
from safelight.store.store import Store

PREFIX = "outputs/starred/"
"""Of the store's keys; the name of a record is the sha256 of the file."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Star(BaseModel):
    """One file that is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of its bytes."""
    since: str
    """ISO 8601 with its offset."""
    by: str
    """Who wants it kept."""


def key_of_star(sha256: str) -> str:
    """Where the record of a file lies.

    Raises:
        InvalidFieldValueError: that is no sha256.
    """
    require_sha256(sha256)
    return f"{PREFIX}{sha256}.json"


def require_sha256(sha256: str) -> None:
    """Refuse what names no file.

    Raises:
        InvalidFieldValueError: that is no sha256.
    """
    if not _SHA256.fullmatch(sha256):
        raise InvalidFieldValueError(
            f"{sha256[:80]!r} is no sha256, expected 64 digits of 0 to f",
            "name a file of the store",
        )


def keep(store: Store, sha256: str, by: str | None = None) -> None:
    """Keep a file for ever, and the manifests that name it.

    Args:
        store: that has it.
        sha256: of its bytes.
        by: who wants it; None is the account of this process.

    Raises:
        InvalidFieldValueError: that is no sha256.
    """
    key = key_of_star(sha256)
    since = datetime.now(UTC).isoformat(timespec="seconds")
    star = Star(sha256=sha256, since=since, by=by or person())
    store.write_record(key, star.model_dump_json().encode())


def let_go(store: Store, sha256: str) -> None:
    """Let the age of a file decide again."""
    store.backend.delete(key_of_star(sha256))


def kept(store: Store) -> frozenset[str]:
    """sha256 of all files that are kept."""
    names = (key.removeprefix(PREFIX).removesuffix(".json") for key in store.backend.list(PREFIX))
    return frozenset(name for name in names if _SHA256.fullmatch(name))
