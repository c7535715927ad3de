"""The name by which scripts import `flows.batching.requests`."""

from flows.batching.requests import Request

__all__ = ["Request"]
