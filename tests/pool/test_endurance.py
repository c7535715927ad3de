"""Many short runs in one process."""

import statistics

import pytest

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
    runs = [
        pool.client.create_flow_run_from_deployment(
            deployment, parameters={**request, "seed": seed}
        ).id
        for seed in range(RUNS)
    ]
    resident, files = list[int](), list[int]()
    for run in runs:
        state = pool.end(run)
        assert state.is_completed(), state.message
        resident.append(child.memory_info().rss)
        files.append(child.num_fds())
    assert child.is_running()  # it was the same process all along
    first, last = (statistics.median(part) for part in (resident[:COMPARED], resident[-COMPARED:]))
    assert last <= GROWTH * first
    assert max(files[-COMPARED:]) <= max(files[:COMPARED])
