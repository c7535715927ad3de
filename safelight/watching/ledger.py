"""What a watch has done, by content, in the store: so that it is done once, whoever goes on."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue, RootModel, ValidationError

from safelight.errors import MissingFileError
from safelight.provenance.manifest import Failure
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from safelight.watching.source import Seen

WATCHES = "outputs/watches/"


class Entry(BaseModel):
    """One content that a watch is done with."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Of the first file that held it, from the watched folder."""
    state: Literal["done", "refused"]
    """Whether results were made of it."""
    flow_run_id: str = ""
    """Run that made them."""
    results: tuple[ArtifactRef, ...] = ()
    """What it made."""
    places: tuple[str, ...] = ()
    """Where they were put."""
    error: Failure | None = None
    """Why it was refused."""


class _Known(RootModel[dict[str, tuple[int, int, str]]]):
    """Size, time of change and sha256 of files, by name: what need not be read again."""


def watch_id(flow: str, parameters: Mapping[str, JsonValue], target: str) -> str:
    """Names a watch by what it does: two of the same share what is done."""
    told = json.dumps([flow, parameters, target], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:24]


class Ledger:
    """The record of one watch. An entry is written whole or not, each by itself."""

    def __init__(self, watch: str) -> None:
        self._prefix = f"{WATCHES}{watch}/"
        keys = current_store().backend.list(self._prefix)
        self._done = {key.removeprefix(self._prefix).removesuffix(".json") for key in keys}
        self._files: dict[str, tuple[int, int, str]] = {}
        with suppress(MissingFileError, ValidationError):
            read = current_store().read_record(f"{self._prefix}files.json")
            self._files = _Known.model_validate_json(read).root
        self._changed = False

    def has(self, sha256: str) -> bool:
        """Whether a content is done or refused."""
        return sha256 in self._done

    def enter(self, sha256: str, entry: Entry) -> None:
        """Record a content; durable when this returns."""
        data = entry.model_dump_json(indent=1, exclude_defaults=True).encode()
        current_store().write_record(f"{self._prefix}{sha256}.json", data)
        current_store().settle()
        self._done.add(sha256)

    def content_of(self, seen: Seen) -> str | None:
        """The sha256 of a file that was read before and has not changed since."""
        size, changed, sha256 = self._files.get(seen.name, (0, 0, ""))
        return sha256 if sha256 and (size, changed) == (seen.size, seen.changed) else None

    def read(self, seen: Seen, sha256: str) -> None:
        """A file was read."""
        self._files[seen.name] = (seen.size, seen.changed, sha256)
        self._changed = True

    def keep_files(self, there: Iterable[Seen]) -> None:
        """Keep what is known of the files that are there; it may be lost, which costs reading."""
        names = {seen.name for seen in there}
        gone = self._files.keys() - names
        if not self._changed and not gone:
            return
        self._files = {name: facts for name, facts in self._files.items() if name in names}
        data = _Known(self._files).model_dump_json().encode()
        current_store().write_record(f"{self._prefix}files.json", data)
        self._changed = False
