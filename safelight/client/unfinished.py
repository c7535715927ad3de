"""Runs that have not ended, and the files that they were given."""

import json
import re
from collections.abc import Iterator

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort

from safelight.errors import MissingFileError
from safelight.provenance.manifest import MANIFESTS
from safelight.retention.removing import Going
from safelight.store.store import current_store

PAGE = 200
WAITING = (StateType.SCHEDULED, StateType.PENDING, StateType.PAUSED)
UNDER_WAY = (StateType.RUNNING, StateType.CANCELLING)
_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_RUN = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def unfinished(client: SyncPrefectClient, without: str = "") -> Going:
    """What runs that have not ended were given, and since when some of them run.

    A run that names another, as a repair or a batch does, is given what that one's manifest names.

    Args:
        client: of the server.
        without: id of a run that does not count: the one that asks.
    """
    given, since = set[str](), list[float]()
    for run in _runs(client):
        if str(run.id) == without:
            continue
        told = json.dumps(run.parameters, default=str)
        given.update(_DIGEST.findall(told))
        for named in (str(run.id), *_RUN.findall(told)):
            given.update(_DIGEST.findall(_manifest(named)))
        if run.state is not None and run.state.type in UNDER_WAY:
            began = run.start_time or run.created
            since.append(began.timestamp() if began else 0.0)
    return Going(frozenset(given), min(since, default=None))


def _runs(client: SyncPrefectClient) -> Iterator[FlowRun]:
    types = FlowRunFilterStateType(any_=[*WAITING, *UNDER_WAY])
    only = FlowRunFilter(state=FlowRunFilterState(type=types))
    seen = 0
    while True:
        page = client.read_flow_runs(
            flow_run_filter=only, sort=FlowRunSort.ID_DESC, limit=PAGE, offset=seen
        )
        yield from page
        seen += len(page)
        if len(page) < PAGE:
            return


def _manifest(run_id: str) -> str:
    try:
        return current_store().read_record(f"{MANIFESTS}{run_id}.json").decode()
    except MissingFileError:
        return ""
