"""What stages of a training keep in the store."""

import json
from collections.abc import Sequence

from safelight.engines.training import Point
from safelight.errors import MissingFileError
from safelight.pixels import Pixels
from safelight.store.store import Store

TENSORS = "application/vnd.safetensors"
"""Media type of a file of tensors."""
FOLDER = "cache/training"
"""Of checkpoints, a folder below for each training."""
ABOUT = "about.json"


class Checkpoints:
    """The checkpoints of one training, by the key of its stage: equal keys train the same.

    Args:
        store: where they lie.
        key: of the stage.
        dataset: sha256 of what is learnt, by which a deletion finds them.
    """

    def __init__(self, store: Store, key: str, dataset: str) -> None:
        self._backend = store.backend
        self._prefix = f"{FOLDER}/{key}/"
        self._dataset = dataset

    def checkpoints(self) -> Sequence[str]:
        """See `Course.checkpoints`."""
        found = self._backend.list(self._prefix)
        names = (key.removeprefix(self._prefix) for key in found)
        return sorted((name for name in names if name != ABOUT), reverse=True)

    def read(self, name: str) -> bytes | None:
        """See `Course.read`."""
        try:
            return self._backend.read(self._prefix + name)
        except MissingFileError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """See `Course.write`."""
        about = self._prefix + ABOUT
        if not self._backend.exists(about):
            told = json.dumps({"dataset": self._dataset}).encode()
            self._backend.write(about, told, "application/json")
        self._backend.write(self._prefix + name, content, TENSORS)

    def drop(self, name: str) -> None:
        """See `Course.drop`."""
        self._backend.delete(self._prefix + name)

    def forget(self) -> None:
        """Drop all: the stage's result has what they hold."""
        for name in (*self.checkpoints(), ABOUT):
            self.drop(name)

    def told(self, point: Point, losses: Sequence[float]) -> None:
        """See `Course.told`; nobody is told here."""

    def sampled(self, step: int, prompts: Sequence[str], pictures: Sequence[Pixels]) -> None:
        """See `Course.sampled`; nobody is shown anything here."""
