"""The name by which scripts import `tasks.base.sizing`."""

from tasks.base.sizing import Sizing, size_for

__all__ = ["Sizing", "size_for"]
