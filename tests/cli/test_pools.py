"""The pool of batches has their type, also where it was made with another one."""

from contextlib import suppress
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled

from safelight.cli.pools import BATCHES, change_embedded, make_batches_pool
from safelight.errors import ContractMismatchError
from safelight.pool.configuration import BATCH_TYPE
from safelight.settings import reload_settings


@pytest.fixture
def stock(api: SyncPrefectClient) -> None:
    """A pool of the stock type."""
    with suppress(ObjectNotFound):
        api.delete_work_pool(BATCHES)
    api.create_work_pool(WorkPoolCreate(name=BATCHES, type="process"))


def waiting(api: SyncPrefectClient, name: str = "batch"):
    deployment = api.create_deployment(
        api.create_flow_from_name("batch"), name=name, work_pool_name=BATCHES
    )
    return api.create_flow_run_from_deployment(deployment).id


@pytest.mark.slow
@pytest.mark.usefixtures("stock")
def test_a_pool_of_another_type_is_made_anew_once_nothing_is_lost(api: SyncPrefectClient):
    run = waiting(api)
    name = api.read_flow_run(run).name
    with pytest.raises(ContractMismatchError, match=f"type process.*runs {name}") as refused:
        make_batches_pool()
    assert f"prefect work-pool delete {BATCHES}" in refused.value.remedy
    assert api.read_work_pool(BATCHES).type == "process"
    api.set_flow_run_state(run, Cancelled(), force=True)
    make_batches_pool()
    assert api.read_work_pool(BATCHES).type == BATCH_TYPE
    before = api.read_work_pool(BATCHES).id
    make_batches_pool()
    assert api.read_work_pool(BATCHES).id == before


@pytest.mark.usefixtures("stock")
def test_deployments_of_others_are_not_taken_their_pool(api: SyncPrefectClient):
    run = waiting(api, "mine")
    api.set_flow_run_state(run, Cancelled(), force=True)
    with pytest.raises(ContractMismatchError, match="deployments mine"):
        make_batches_pool()


@pytest.mark.slow
@pytest.mark.usefixtures("stock")
def test_on_an_embedded_server_all_that_the_pool_has_stays(
    api: SyncPrefectClient,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
):
    (database,) = tmp_path_factory.getbasetemp().glob("server[0-9]*/cache/prefect/prefect.db")
    run, pool = waiting(api), api.read_work_pool(BATCHES).id
    monkeypatch.setenv("VOLUME_ROOT", str(Path(database).parents[2]))
    reload_settings()
    try:
        make_batches_pool(change_embedded)
    finally:
        monkeypatch.undo()
        reload_settings()
    changed = api.read_work_pool(BATCHES)
    assert (changed.type, changed.id) == (BATCH_TYPE, pool)
    assert api.read_flow_run(run).work_pool_name == BATCHES
    due = api.request("POST", f"/work_pools/{BATCHES}/get_scheduled_flow_runs", json={})
    assert str(run) in due.text
    api.set_flow_run_state(run, Cancelled(), force=True)
