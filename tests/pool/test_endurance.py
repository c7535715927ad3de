"""Many short runs in one process."""

import time
from statistics import median

import pytest
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import State

from tests.prefect_pool import Pool, children

RUNS, COMPARED = 200, 50
GROWTH = 1.05


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_runs_leave_memory_and_files_as_they_were(pool: Pool):
    worker = pool.start_worker()
    (child,) = children(worker)
    deployment = pool.client.create_deployment(
        pool.client.create_flow_from_name("generate"),
        name=pool.name,
        entrypoint="flows.generate.generate",
        work_pool_name=pool.name,
    )
    request = {"prompt": "a red heart", "width": 64, "height": 64, "steps": 1}
    for seed in range(RUNS):
        pool.client.create_flow_run_from_deployment(
            deployment, parameters={**request, "seed": seed}
        )
    mine = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    resident, files = dict[int, int](), dict[int, int]()
    while (over := len(finished(pool, mine))) < RUNS:
        resident[over], files[over] = child.memory_info().rss, child.num_fds()
        time.sleep(0.5)  # asking takes time from the runs
    assert {state.name for state in finished(pool, mine)} == {"Completed"}
    assert child.is_running()  # it was the same process all along
    early = [over for over in resident if 0 < over <= COMPARED]
    late = [over for over in resident if over > RUNS - COMPARED]
    growth = median(resident[over] for over in late) / median(resident[over] for over in early)
    assert growth <= GROWTH
    assert max(files[over] for over in late) <= max(files[over] for over in early)


def finished(pool: Pool, deployment: DeploymentFilter) -> list[State]:
    found = pool.client.read_flow_runs(deployment_filter=deployment, limit=RUNS)
    return [run.state for run in found if run.state is not None and run.state.is_final()]
