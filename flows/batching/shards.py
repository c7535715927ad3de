"""Shards of a batch: what one holds, where the store keeps it, and how large the next one is."""

import hashlib
from collections import deque
from statistics import median
from uuid import UUID, uuid5

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from flows.batching.requests import Request
from safelight.errors import InvalidFieldValueError, MissingFileError
from safelight.store.store import current_store

SHARDS = "outputs/batches/shards/"
KEY = r"^outputs/batches/shards/([0-9a-f]{24}/)?[0-9a-f-]{36}\.json$"
WORK_SECONDS = 45.0
"""Of a shard: long against what a run costs, short against what a lost process costs."""
FIRST = 4
"""Requests of a shard while nobody knows how long they take."""
MOST_BEFORE = 64
"""Requests of a shard while only earlier batches tell."""
MOST = 500
"""Of one shard."""
KNOWN = 40
"""The latest requests say how long the next ones take."""
_NAMES = UUID("a4cf6a0e-5b0f-5f0e-9d0b-6a1f4f2f7f11")
"""Namespace of the ids that shards and their requests have."""


class Sharded(BaseModel):
    """One request as a shard has it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    number: int
    where: str
    run_id: str
    identity: str = ""
    """Names the request within its batch."""
    attempt: int = 0
    """At the request, over all runs of the batch."""
    parameters: dict[str, JsonValue]


class Shard(BaseModel):
    """Some requests of a batch that one flow run works through."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    flow: str
    retries: int
    together: bool = True
    """Whether alike requests may be under way at once; not where a process died of one."""
    requests: tuple[Sharded, ...]


def run_id_of(batch: str, request: Request, attempt: int) -> str:
    """The id of a request's manifest: the same in every shard that has this attempt at it."""
    return str(uuid5(_NAMES, f"{batch}:{request.identity}:{attempt}"))


def folder_of(batch: str) -> str:
    """What the shards of a batch have before their names in the store."""
    return f"{hashlib.sha256(batch.encode()).hexdigest()[:24]}/"


def keep_shard(shard: Shard, batch: str | None = None) -> tuple[str, str]:
    """Put a shard into the store, where its run reads it.

    Args:
        shard: what it holds.
        batch: names the batch, whose shards lie together.

    Returns:
        Its key, and a name that any shard with the same requests has.
    """
    name = uuid5(_NAMES, ",".join(one.run_id for one in shard.requests))
    key = f"{SHARDS}{folder_of(batch) if batch else ''}{name}.json"
    current_store().write_record(key, shard.model_dump_json().encode())
    current_store().settle()
    return key, str(name)


def load_shard(key: str) -> Shard:
    """Read a shard.

    Args:
        key: as `keep_shard` gave it.

    Raises:
        InvalidFieldValueError: there is none under this key, or what is there is none.
    """
    try:
        return Shard.model_validate_json(current_store().read_record(key))
    except (MissingFileError, ValidationError) as error:
        raise InvalidFieldValueError(
            f"requests is {key}, where the store has no shard of a batch",
            "start a batch; it makes its shards itself",
        ) from error


class Sizes:
    """How many requests the next shard has, learnt from how long the last ones took."""

    def __init__(self, expected: float | None = None) -> None:
        """Begin.

        Args:
            expected: seconds that a request took in earlier batches; None is not known.
        """
        self._seconds = deque[float](maxlen=KNOWN)
        self._expected = expected

    def took(self, seconds: float) -> None:
        """A request that was not found finished took so long."""
        self._seconds.append(seconds)

    def next(self, left: int, places: int) -> int:
        """Requests of the next shard.

        Args:
            left: that no shard has yet.
            places: shards under way at once; towards the end each gets less, so that all end
                together.
        """
        wanted = FIRST
        if self._seconds:
            wanted = int(WORK_SECONDS / max(median(self._seconds), 0.01))
        elif self._expected is not None:
            wanted = min(MOST_BEFORE, int(WORK_SECONDS / max(self._expected, 0.01)))
        share = -(-left // (2 * places))
        return max(1, min(wanted, share, MOST, left))
