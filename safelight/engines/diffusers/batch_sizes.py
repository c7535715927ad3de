"""How many pictures go through a model together: found by trying, and remembered."""

from safelight.remembered import Remembered

MOST = 64
"""Pictures that ever go together: beyond it no device gains."""
GAIN = 1.03
"""A larger batch is worth its memory when it makes pictures this much faster."""
TRIES = 2
"""Batches of one size before its time counts; the first of them also prepares the kernels."""
COMPILED_FIRST = 8
"""Where trying begins with a compiled model: every size is compiled by itself, which takes longer
than smaller sizes could ever save."""
_remembered = Remembered("batch-sizes.json")
_known: dict[tuple[str, int], "BatchSizes"] = {}


def batch_sizes(kind: str, most: int, *, compiled: bool = False) -> "BatchSizes":
    """The sizes of one kind in this process, which go on from batch to batch."""
    return _known.setdefault((kind, most), BatchSizes(kind, most, compiled=compiled))


class BatchSizes:
    """Sizes of the batches of one kind: 1, 2, 4, ... while each step gains and fits.

    A compiled model begins in the middle, and the last pictures go in batches of 4, 2 and 1 instead
    of one of a size of its own.
    """

    def __init__(self, kind: str, most: int, *, compiled: bool = False) -> None:
        """Go on from what is remembered.

        Args:
            kind: all that the size depends on: model, pixels, device, number format.
            most: the largest to try.
            compiled: whether a size costs as much as compiling a model.
        """
        self._compiled = compiled
        self._kind = f"{kind} up to {most}"
        known = _remembered.get(self._kind)
        self._settled = known if isinstance(known, int) and 1 <= known <= most else None
        self._trying, self._most = _power(min(COMPILED_FIRST, most)) if compiled else 1, most
        self._best: dict[int, float] = {}
        self._tries = 0

    @property
    def settled(self) -> bool:
        """True when no larger size is to be tried."""
        return self._settled is not None

    def next(self, left: int) -> int:
        """How many of the `left` pictures to draw now."""
        size = min(self._settled or self._trying, left)
        return _power(size) if self._compiled else size

    def took(self, count: int, seconds: float) -> None:
        """Learn from a batch that was drawn; one that was cut short tells nothing."""
        if self.settled or count != self._trying:
            return
        each = seconds / count
        self._best[count] = min(each, self._best.get(count, each))
        self._tries += 1
        if self._tries < TRIES:
            return
        before = self._best.get(count // 2)
        if before is not None and before < self._best[count] * GAIN:
            self._settle(count // 2)
        elif count * 2 > self._most:
            self._settle(count)
        else:
            self._trying, self._tries = count * 2, 0

    def did_not_fit(self, count: int) -> None:
        """Try this many no more in this process; the half of it fits or is halved in turn.

        Another process may have more memory, so this is not remembered.
        """
        self._settled = max(count // 2, 1)

    def _settle(self, size: int) -> None:
        self._settled = size
        _remembered.put(self._kind, size)


def _power(size: int) -> int:
    """The power of two that is `size` or next below it."""
    return 1 << size.bit_length() - 1
