"""The name by which scripts import `flows.batching.laying_out` and `tabling`."""

from flows.batching.laying_out import caption
from flows.batching.tabling import THUMBNAIL_CHARACTERS

__all__ = ["THUMBNAIL_CHARACTERS", "caption"]
