"""The one seed of a run."""

import hashlib
from collections.abc import Mapping
from typing import Any


def with_seed(called: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    """What a body is called with; a seed that was left out is drawn from the run's id."""
    filled = dict(called)
    if "seed" in filled and filled["seed"] is None:
        filled["seed"] = int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:4], "big")
    return filled
