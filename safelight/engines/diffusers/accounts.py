"""What became of all that a file says: used, unused with a reason, assumed where it says nothing.

A tensor or a field that nobody reads would be another picture than its maker's, without a word.
Tests and notes read the account.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

NAMED = 5
"""Names that a text gives; it counts the others."""


@dataclass(frozen=True)
class Account:
    """Of one file, or of a folder of files."""

    used: frozenset[str]
    """Names of what took part: tensors, layers of an add-on, fields of a config as `part.field`."""
    unused: Mapping[str, str]
    """Names of what did not, and why."""
    assumed: Mapping[str, object] = field(default_factory=dict[str, object])
    """Fields that a config leaves out though the picture depends on them, and what was taken."""

    def said(self) -> str | None:
        """For people: what took no part, by reason; None when everything did."""
        by_reason: dict[str, list[str]] = defaultdict(list)
        for name, why in self.unused.items():
            by_reason[why].append(name)
        return "; ".join(f"{several(names)} ({why})" for why, names in by_reason.items()) or None


def several(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
