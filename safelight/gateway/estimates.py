"""How long jobs of a workflow take, as the last ones did."""

from functools import lru_cache
from statistics import median
from time import monotonic

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.sorting import FlowRunSort

from safelight.client.runs import succeeded_runs

COUNTED = 9
"""Jobs that count, the latest."""
KNOWN_SECONDS = 30.0
"""How long an estimate is good for."""


def expected_seconds(client: SyncPrefectClient, workflow: str) -> float | None:
    """Median of the last jobs of a workflow that succeeded; None where none did."""
    return _expected(client, workflow, int(monotonic() / KNOWN_SECONDS))


@lru_cache(maxsize=256)
def _expected(client: SyncPrefectClient, workflow: str, _moment: int) -> float | None:
    found = succeeded_runs(client, workflow, FlowRunSort.END_TIME_DESC, COUNTED)
    seconds = [run.total_run_time.total_seconds() for run in found]
    return round(median(seconds), 1) if seconds else None
