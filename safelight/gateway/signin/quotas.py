"""How much of a day a key has left: counted from its runs, which carry its id as a tag."""

from datetime import UTC, datetime, timedelta
from threading import Lock

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterIdempotencyKey,
    FlowRunFilterParentTaskRunId,
    FlowRunFilterTags,
)

from safelight.gateway.problems import ShareSpentError, SlowDownError
from safelight.gateway.signin.caller import Caller
from safelight.provenance.usage import usage_of
from safelight.store.store import current_store

LOCK = Lock()
"""Held from the count to the creation of the run that it allows."""


def require_share(
    client: SyncPrefectClient, caller: Caller, key: str | None = None, *, new: bool = True
) -> None:
    """Refuse a run that the caller's share of the day does not hold.

    What runs now counts once it has ended.

    Args:
        client: of the server.
        caller: who asks.
        key: idempotency key of the run; one that exists is found again, and costs nothing.
        new: whether a run is created, rather than one that exists taken up again.

    Raises:
        SlowDownError: the runs or the seconds of the day are used up.
        ShareSpentError: the money of the day is.
    """
    limits = caller.limits
    if limits.runs_per_day is limits.gpu_seconds_per_day is limits.usd_per_day is None:
        return
    now = datetime.now(UTC)
    begin = now.replace(hour=0, minute=0, second=0, microsecond=0)
    opens = begin + timedelta(days=1)
    wait = (opens - now).total_seconds()
    when = f"wait until {opens:%Y-%m-%dT%H:%M:%SZ}, or ask for a key with another limit"
    if key is not None and _exists(client, key):
        return
    if new and limits.runs_per_day is not None:
        runs = _runs(client, caller, begin)
        if runs >= limits.runs_per_day:
            raise SlowDownError(
                f"{caller.actor} has submitted {runs} jobs today, and may {limits.runs_per_day}",
                when,
                wait,
            )
    used = usage_of(current_store(), caller.id, f"{begin:%Y-%m-%d}")
    if limits.gpu_seconds_per_day is not None and used.gpu_seconds >= limits.gpu_seconds_per_day:
        raise SlowDownError(
            f"jobs of {caller.actor} have worked {used.gpu_seconds:g} s on a GPU today, and may "
            f"{limits.gpu_seconds_per_day:g} s",
            when,
            wait,
        )
    if limits.usd_per_day is not None and used.usd >= limits.usd_per_day:
        raise ShareSpentError(
            f"jobs of {caller.actor} have cost {used.usd:g} USD today, and may "
            f"{limits.usd_per_day:g} USD",
            when,
            wait,
        )


def _runs(client: SyncPrefectClient, caller: Caller, begin: datetime) -> int:
    """Jobs of a day that were asked for by a key; those that a batch made of one are not."""
    return client.count_flow_runs(
        flow_run_filter=FlowRunFilter(
            tags=FlowRunFilterTags(all_=caller.tags),
            expected_start_time=FlowRunFilterExpectedStartTime.model_validate({"after_": begin}),
            parent_task_run_id=FlowRunFilterParentTaskRunId(is_null_=True),
        )
    )


def _exists(client: SyncPrefectClient, key: str) -> bool:
    wanted = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[key]))
    return client.count_flow_runs(flow_run_filter=wanted) > 0
