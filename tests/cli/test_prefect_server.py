"""The embedded server refuses no write because another one crosses it."""

from collections import Counter
from http import HTTPStatus
from uuid import uuid4

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate

RUNS = 150
"""Stock Prefect refuses one in sixteen."""


def test_no_write_is_refused(api: SyncPrefectClient):
    name = f"crossing-{uuid4().hex[:8]}"
    api.create_work_pool(WorkPoolCreate(name=name, type="process"))
    deployment = api.create_deployment(
        api.create_flow_from_name(name), name=name, entrypoint="none.none", work_pool_name=name
    )
    with httpx.Client(base_url=str(api.api_url), timeout=60) as plain:  # asks once
        url = f"deployments/{deployment}/create_flow_run"
        answers = Counter(plain.post(url, json={}).status_code for _ in range(RUNS))
    assert answers == {HTTPStatus.CREATED: RUNS}
