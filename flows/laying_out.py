"""The name by which scripts import `flows.batching.laying_out`."""

from flows.batching.laying_out import THUMBNAIL_CHARACTERS, caption

__all__ = ["THUMBNAIL_CHARACTERS", "caption"]
