"""The embedded server refuses no write because another crosses it; none waits for itself."""

from collections import Counter
from datetime import timedelta
from http import HTTPStatus
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from pydantic import TypeAdapter

from tests.prefect_pool import credentials

RUNS = 150
"""Stock Prefect refuses one in sixteen."""
BUSY_SECONDS = 55.0
"""Under SQLite's busy timeout of 60 s, which a request that waits for its own lock takes."""


@pytest.mark.slow
def test_no_write_is_refused(api: SyncPrefectClient):
    name = f"crossing-{uuid4().hex[:8]}"
    api.create_work_pool(WorkPoolCreate(name=name, type="process"))
    deployment = api.create_deployment(
        api.create_flow_from_name(name), name=name, entrypoint="none.none", work_pool_name=name
    )
    known = credentials()
    with httpx.Client(base_url=str(api.api_url), timeout=60, headers=known) as plain:  # asks once
        url = f"deployments/{deployment}/create_flow_run"
        answers = Counter(plain.post(url, json={}).status_code for _ in range(RUNS))
    assert answers == {HTTPStatus.CREATED: RUNS}


@pytest.mark.parametrize("by_id", [False, True])
def test_pausing_a_queue_does_not_wait_for_itself(api: SyncPrefectClient, by_id: bool):
    name = f"pausing-{uuid4().hex[:8]}"
    api.create_work_pool(WorkPoolCreate(name=name, type="process"))
    queue = api.read_work_queue_by_name("default", work_pool_name=name)
    path = f"work_pools/{name}/queues/default"
    address = f"work_queues/{queue.id}" if by_id else path
    with httpx.Client(
        base_url=str(api.api_url), timeout=BUSY_SECONDS, headers=credentials()
    ) as plain:
        answer = plain.patch(address, json={"is_paused": True})
        assert answer.status_code == HTTPStatus.NO_CONTENT
        assert plain.get(path).json()["is_paused"]


def test_an_embedded_server_calls_runs_late_after_five_minutes(api: SyncPrefectClient):
    with httpx.Client(base_url=str(api.api_url), timeout=60, headers=credentials()) as plain:
        late = plain.get("admin/settings").json()["server"]["services"]["late_runs"]
    assert late["enabled"]
    assert TypeAdapter(timedelta).validate_python(late["after_seconds"]) == timedelta(minutes=5)
