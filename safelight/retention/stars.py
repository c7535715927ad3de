"""Files that people want to keep, whatever their age: a small record beside the results each."""

from pydantic import BaseModel, ConfigDict

from safelight.account import person
from safelight.store.store import current_store

PREFIX = "outputs/starred/"


class Star(BaseModel):
    """Says that a file is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    sha256: str
    """Of the file."""
    by: str
    """Who wants it kept."""


def star(sha256: str, by: str | None = None) -> None:
    """Keep a file and the manifests that name it; None is the account of this process."""
    kept = Star(sha256=sha256, by=by or person())
    current_store().backend.write(_key(sha256), kept.model_dump_json().encode(), "application/json")


def unstar(sha256: str) -> None:
    """Let a file's age decide again."""
    current_store().backend.delete(_key(sha256))


def starred() -> set[str]:
    """sha256 of every file that is kept."""
    keys = current_store().backend.list(PREFIX)
    return {key.removeprefix(PREFIX).partition(".")[0] for key in keys}


def _key(sha256: str) -> str:
    return f"{PREFIX}{sha256}.json"
