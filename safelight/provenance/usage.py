"""What the runs of a key used in a day, found without reading their manifests.

Each manifest of such a run leaves an empty record whose name says how much it was. A run that is
taken up again leaves another one for what it did then: stages that it took from the cache cost
nothing.
"""

import hashlib
import re
from dataclasses import dataclass

from safelight.store.store import Store

BY_KEY = "outputs/manifests/by-key/"
GPUS = ("cuda", "mps")
"""Classes of devices whose seconds count."""
LONGEST_ID = 100
"""Of a run, in a name; longer ones are hashed."""
_ID = re.compile(r"[A-Za-z0-9-]{1,40}")
_NAME = re.compile(r".+\.(\d+)\.(\d+)\.json")
TAG = "key:"
"""How the tag of a run begins that names the key by which it was asked for."""


@dataclass(frozen=True)
class Usage:
    """How much was used."""

    gpu_seconds: float
    """Seconds that stages worked on a GPU."""
    usd: float
    """What calls to providers cost."""


def key_in(tags: list[str]) -> str:
    """The id of the key in the tags of a run; empty where none is named."""
    found = (tag.removeprefix(TAG) for tag in tags if tag.startswith(TAG))
    return next((each for each in found if _ID.fullmatch(each)), "")


def note_usage(store: Store, key: str, day: str, run: str, used: Usage) -> None:
    """Leave the record of a run.

    Args:
        store: where to.
        key: id of the key by which it was asked for.
        day: when it ended, UTC, as 2026-01-31.
        run: its id.
        used: how much; nothing leaves no record.
    """
    milliseconds, micros = round(used.gpu_seconds * 1000), round(used.usd * 1_000_000)
    if milliseconds or micros:
        name = run if len(run) <= LONGEST_ID else hashlib.sha256(run.encode()).hexdigest()
        store.write_record(f"{BY_KEY}{key}/{day}/{name}.{milliseconds}.{micros}.json", b"{}")


def usage_of(store: Store, key: str, day: str) -> Usage:
    """What the runs of a key that ended on a day (UTC) used."""
    seconds = usd = 0.0
    for found in store.backend.list(f"{BY_KEY}{key}/{day}/"):
        said = _NAME.fullmatch(found)
        if said is not None:
            seconds += int(said[1]) / 1000
            usd += int(said[2]) / 1_000_000
    return Usage(round(seconds, 3), round(usd, 6))
