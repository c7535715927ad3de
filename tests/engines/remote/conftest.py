"""Every test here has the servers that stand for the providers."""

from tests.engines.remote.servers import (
    fal,
    fresh_standing,
    kling,
    runware,
    sync,
)

__all__ = ["fal", "fresh_standing", "kling", "runware", "sync"]
