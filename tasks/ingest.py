"""The name by which scripts import `tasks.base.ingest`."""

from tasks.base.ingest import ingest

__all__ = ["ingest"]
