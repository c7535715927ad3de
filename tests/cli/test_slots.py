"""Runs on work pools that know nothing of GPUs take a slot of a global limit."""

from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.states import Completed, Pending

from safelight.cli.serving import LIMITS_FILE
from safelight.cli.slots import Slots, apply_limits, read_limits
from safelight.errors import InvalidFieldValueError


def deployed(client: SyncPrefectClient, pool_type: str) -> tuple[str, str]:
    """A deployment on a fresh pool of a type."""
    name = f"{pool_type}-{uuid4().hex[:8]}"
    client.create_work_pool(WorkPoolCreate(name=name, type=pool_type))
    flow_id = client.create_flow_from_name("enhance")
    deployment = client.create_deployment(flow_id, name=name, work_pool_name=name)
    return name, str(deployment)


def names(client: SyncPrefectClient, deployment: str) -> str | None:
    limit = client.read_deployment(deployment).global_concurrency_limit
    return limit.name if limit else None


def test_the_file_of_the_checkout_reads():
    (gpu,) = read_limits(LIMITS_FILE)
    assert gpu.name == "gpu"
    assert "safelight-gpu" not in gpu.pool_types


def test_a_file_with_a_field_nobody_knows_is_refused(tmp_path: Path):
    file = tmp_path / "limits.yaml"
    file.write_text("limits: [{name: gpu, limit: 1, slots: 2}]")
    with pytest.raises(InvalidFieldValueError, match="slots"):
        read_limits(file)


def test_the_second_run_waits_for_the_slot_of_the_first(api: SyncPrefectClient):
    limit = Slots(name=f"gpu-{uuid4().hex[:8]}", limit=1, pool_types=("process",))
    pool, deployment = deployed(api, "process")
    apply_limits(api, (limit,), pool)
    first, second = (api.create_flow_run_from_deployment(deployment).id for _ in range(2))
    api.set_flow_run_state(first, Pending())
    api.set_flow_run_state(second, Pending())
    assert api.read_flow_run(first).state_name == "Pending"
    assert api.read_flow_run(second).state_name == "AwaitingConcurrencySlot"
    api.set_flow_run_state(first, Completed(), force=True)
    taken = api.read_global_concurrency_limit_by_name(limit.name)
    assert taken.active_slots == 0


def test_what_is_there_stays_as_the_operator_set_it(api: SyncPrefectClient):
    limit = Slots(name=f"gpu-{uuid4().hex[:8]}", limit=1, pool_types=("process",))
    pool, deployment = deployed(api, "process")
    apply_limits(api, (limit,), pool)
    apply_limits(api, (limit.model_copy(update={"limit": 4}),), pool)
    assert api.read_global_concurrency_limit_by_name(limit.name).limit == 1
    assert names(api, deployment) == limit.name
    apply_limits(api, (limit.model_copy(update={"pool_types": ()}),), pool)
    assert names(api, deployment) is None


def test_pools_that_count_their_devices_take_no_slot(api: SyncPrefectClient):
    pool, deployment = deployed(api, "safelight-gpu")
    apply_limits(api, read_limits(LIMITS_FILE), pool)
    assert names(api, deployment) is None
