"""What the shards of a batch came to, as the store has it: an object for each shard that ended.

Beside them lie the shards themselves. One without such an object is under way, or ended while
nobody looked; the manifests of its requests tell then, and of no others need be read.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import cast

from flows.batching.catalogue import Entry, told
from flows.batching.outcomes import outcome_left
from flows.batching.shards import SHARDS, Shard, folder_of, load_shard
from safelight.errors import InvalidFieldValueError
from safelight.store.store import current_store

ENDED = "outputs/batches/ended/"


class Earlier:
    """The shards of one batch.

    Args:
        batch: names it.
    """

    def __init__(self, batch: str) -> None:
        self._folder = folder_of(batch)

    def entries(self) -> Iterator[Entry]:
        """What attempts at requests came to, of all shards that ended."""
        for key in current_store().backend.list(f"{ENDED}{self._folder}"):
            yield from (
                cast("Entry", tuple(each)) for each in json.loads(current_store().read_record(key))
            )

    def unlisted(self) -> list[str]:
        """Keys of the shards that have no such object."""
        listed = current_store().backend.list
        ended = {_name(key) for key in listed(f"{ENDED}{self._folder}")}
        shards = listed(f"{SHARDS}{self._folder}")
        return [key for key in shards if _name(key) not in ended]

    def left_by(self, key: str) -> list[Entry]:
        """What the requests of a shard came to, by the manifests that they left."""
        try:
            shard = load_shard(key)
        except InvalidFieldValueError:  # of another version: what its stages made is found
            return []
        return [*left_by(shard)]

    def keep(self, name: str, entries: Sequence[Entry]) -> None:
        """Note what a shard came to that ended; one that came to nothing may come again."""
        if not entries:
            return
        data = json.dumps(entries).encode()
        current_store().write_record(f"{ENDED}{self._folder}{name}.json", data)


def left_by(shard: Shard) -> Iterator[Entry]:
    """What requests of a shard came to, by the manifests that they left."""
    for one in shard.requests:
        left = outcome_left(one.number, one.where, one.run_id)
        if left is not None and one.identity:
            outcome, ended = left
            yield one.identity, one.attempt, ended.isoformat(), told(outcome)


def _name(key: str) -> str:
    return PurePosixPath(key).stem
