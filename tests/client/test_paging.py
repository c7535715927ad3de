"""Lists of the Prefect API are read to their end."""

from dataclasses import dataclass
from uuid import UUID, uuid4

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName

from safelight.cli.slots import Slots, apply_limits
from safelight.client.paging import every_deployment, every_worker, pages


@dataclass(frozen=True)
class Entry:
    id: UUID


def test_a_list_that_moves_on_by_one_meanwhile_gives_each_entry_once():
    entries = [Entry(uuid4()) for _ in range(451)]

    def read(offset: int) -> list[Entry]:
        found = entries[offset : offset + 200]
        if offset == 0:
            entries.insert(0, Entry(uuid4()))
        return found

    before = list(entries)
    assert list(pages(read)) == before


def test_the_pages_of_a_server_hold_all_deployments_of_a_pool(api: SyncPrefectClient):
    limit = Slots(name=f"gpu-{uuid4().hex[:8]}", limit=1, pool_types=("process",))
    pool, other = (f"{name}-{uuid4().hex[:8]}" for name in ("mine", "other"))
    for name in (pool, other):
        api.create_work_pool(WorkPoolCreate(name=name, type="process"))
    flows = [api.create_flow_from_name(f"{pool}-{n}") for n in range(5)]
    made = {api.create_deployment(flow, name="same", work_pool_name=pool) for flow in flows}
    beside = api.create_deployment(flows[0], name="beside", work_pool_name=other)
    wanted = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    small = pages(
        lambda offset: api.read_deployments(work_pool_filter=wanted, limit=2, offset=offset)
    )
    assert {one.id for one in small} == made
    assert {one.id for one in every_deployment(api, pool)} == made
    assert made | {beside} <= {one.id for one in every_deployment(api)}
    assert list(every_worker(api, pool)) == []
    apply_limits(api, (limit,), pool)
    under = {one.id for one in every_deployment(api) if one.global_concurrency_limit}
    assert made <= under
    assert beside not in under
