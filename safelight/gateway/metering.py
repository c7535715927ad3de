"""What the gateway tells Prometheus: its requests, and the runs that the Prefect server has."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterNextScheduledStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from safelight.errors import PipelineError
from safelight.gateway.counting import REGISTRY
from safelight.gateway.jobs import STATE_TYPES, Status

FRESH_SECONDS = 5.0
"""Answers of the server are given again for this long, whoever scrapes."""


class Runs(Collector):
    """Asks the Prefect server how many runs there are of each status.

    Args:
        client: of the server.
    """

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._known: tuple[dict[str, int], int] | None = None

    def collect(self) -> Iterator[Metric]:
        """What Prometheus is told; of a server that does not answer, only that."""
        with self._lock:
            if time.monotonic() - self._asked > FRESH_SECONDS:
                self._known = self._ask()
                self._asked = time.monotonic()
            known = self._known
        answers = GaugeMetricFamily(
            "safelight_prefect_up", "Whether the Prefect server answers.", labels=()
        )
        answers.add_metric((), 1.0 if known else 0.0)
        yield answers
        if known is None:
            return
        runs = GaugeMetricFamily("safelight_runs", "Flow runs by status.", labels=("status",))
        for status, count in known[0].items():
            runs.add_metric((status,), count)
        yield runs
        queue = GaugeMetricFamily("safelight_queue", "Flow runs that are due and wait.", labels=())
        queue.add_metric((), known[1])
        yield queue

    def _ask(self) -> tuple[dict[str, int], int] | None:
        try:
            counts = {status.value: self._count(*STATE_TYPES[status]) for status in Status}
            return counts, self._count(StateType.SCHEDULED, StateType.PENDING, due=True)
        except PipelineError:
            return None

    def _count(self, *types: StateType, due: bool = False) -> int:
        due_by = (
            FlowRunFilterNextScheduledStartTime(before_=datetime.now(UTC))  # pyright: ignore[reportArgumentType]
            if due
            else None
        )
        return self._client.count_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types))),
                next_scheduled_start_time=due_by,
            )
        )


def metrics_of(runs: Runs) -> bytes:
    """The text that Prometheus reads."""
    of_server = CollectorRegistry()
    of_server.register(runs)
    return generate_latest(REGISTRY) + generate_latest(of_server)
