"""A hundred thousand models in a thousand folders, scanned without hashes: seconds, and again."""

import json
import os
import tempfile
import time
from pathlib import Path

from safelight.settings import reload_settings
from safelight.weights.registry import ModelRegistry
from tests.weights.many import fill

FIRST_BAR, AGAIN_BAR = 30.0, 3.0
"""Seconds."""


def main() -> dict[str, float]:
    """Measure and print one JSON line; exit status 1 above a bar."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VOLUME_ROOT"] = folder
        reload_settings()
        count = fill(Path(folder) / "models")
        registry = ModelRegistry()
        first, again = (_seconds(registry, count) for _ in range(2))
        started = time.perf_counter()
        registry.get_model("d7/same-4")
        named = time.perf_counter() - started
        started = time.perf_counter()
        registry.list_all()
        listed = time.perf_counter() - started
    measured = {"first": first, "again": again, "named": named, "listed": listed}
    print(json.dumps({"benchmark": "registry", "models": count, **measured}))  # noqa: T201
    return measured


def _seconds(registry: ModelRegistry, count: int) -> float:
    started = time.perf_counter()
    found = registry.scan(hashes=False)
    taken = time.perf_counter() - started
    if found.models != count:
        raise RuntimeError(f"{found.models} of {count} models were found")
    return taken


if __name__ == "__main__":
    found = main()
    raise SystemExit(found["first"] > FIRST_BAR or found["again"] > AGAIN_BAR)
