"""Many short runs in one process."""

import time
from statistics import median

import pytest
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, StateType

from tests.prefect_pool import Pool, children

RUNS, COMPARED = 200, 50
GROWTH = 1.05


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_two_hundred_runs_leave_memory_and_files_as_they_were(pool: Pool):
    deployment = pool.client.create_deployment(
        pool.client.create_flow_from_name("generate"),
        name=pool.name,
        entrypoint="flows.generate.generate",
        work_pool_name=pool.name,
    )
    request = {"prompt": "a red heart", "width": 64, "height": 64, "steps": 1}
    for seed in range(RUNS):
        parameters = {**request, "seed": seed}
        pool.client.create_flow_run_from_deployment(deployment, parameters=parameters)

    def ended(*states: StateType) -> int:
        return pool.client.count_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[*states]))
            ),
        )

    (child,) = children(pool.start_worker())
    resident, files = dict[int, int](), dict[int, int]()
    while (over := ended(*TERMINAL_STATES)) < RUNS:
        resident[over], files[over] = child.memory_info().rss, child.num_fds()
        time.sleep(0.5)  # asking takes time from the runs
    assert ended(StateType.COMPLETED) == RUNS
    assert child.is_running()  # it was the same process all along
    early = [over for over in resident if 0 < over <= COMPARED]
    late = [over for over in resident if over > RUNS - COMPARED]
    growth = median(resident[over] for over in late) / median(resident[over] for over in early)
    assert growth <= GROWTH
    # a look may meet a request, or a socket that waits for the garbage collector: the least counts
    assert min(files[over] for over in late) <= min(files[over] for over in early)
