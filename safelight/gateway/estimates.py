"""How long jobs of a workflow take, as the last ones did."""

from functools import lru_cache
from statistics import median
from time import monotonic

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort

COUNTED = 9
"""Jobs that count, the latest."""
KNOWN_SECONDS = 30.0
"""How long an estimate is good for."""


def expected_seconds(client: SyncPrefectClient, workflow: str) -> float | None:
    """Median of the last jobs of a workflow that succeeded; None where none did."""
    return _expected(client, workflow, int(monotonic() / KNOWN_SECONDS))


@lru_cache(maxsize=256)
def _expected(client: SyncPrefectClient, workflow: str, _moment: int) -> float | None:
    done = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.COMPLETED]))
    found = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[workflow])),
        flow_run_filter=FlowRunFilter(state=done),
        sort=FlowRunSort.END_TIME_DESC,
        limit=COUNTED,
    )
    seconds = [run.total_run_time.total_seconds() for run in found]
    return round(median(seconds), 1) if seconds else None
