"""Workers in process namespaces of their own, as containers are: who has a run, and who lost it."""

import os
import shutil
import signal
import subprocess
import time
from collections import Counter

import psutil
import pytest

from safelight.pool.ownership import EXPIRE_SECONDS, Owner
from tests.prefect_pool import Pool, begun, eventually

BOX = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("unshare") is None,
        reason="only root on Linux can make process namespaces",
    ),
]
TAKEN = EXPIRE_SECONDS + 120


def family(worker: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    return psutil.Process(worker.pid).children(recursive=True)


def test_a_restarted_container_takes_its_own_run_up_though_name_and_numbers_come_again(pool: Pool):
    first = pool.start_worker(prefix=BOX)
    run = pool.create("steps", count=100)
    begun(pool)
    before = eventually(lambda: Owner.parse(pool.read(run).infrastructure_pid))
    for process in family(first):
        process.kill()
    first.wait()
    pool.start_worker(prefix=BOX)
    eventually(lambda: pool.state(run).is_final(), TAKEN)
    after = Owner.parse(pool.read(run).infrastructure_pid)
    assert pool.state(run).is_completed()
    assert after is not None
    assert after.claim.number > before.claim.number


def test_a_living_run_of_another_namespace_is_left_alone_and_a_sleeper_loses_its_own(pool: Pool):
    first = pool.start_worker(prefix=BOX)
    run = pool.create("steps", count=3000)
    begun(pool)
    pool.start_worker("two", prefix=BOX)
    time.sleep(EXPIRE_SECONDS + 20)  # the second has looked often enough
    states = [state.name for state in pool.client.read_flow_run_states(run)]
    assert states == ["Scheduled", "Pending", "Running"]
    sleepers = family(first)
    for process in sleepers:
        process.send_signal(signal.SIGSTOP)
    eventually(lambda: pool.project.notes.count("begin") == 2, TAKEN)
    taken = pool.read(run).infrastructure_pid
    for process in sleepers:
        process.send_signal(signal.SIGCONT)
    eventually(lambda: "another worker has it" in pool.log())
    assert pool.end(pool.create("pid")).is_completed()  # the first is free again
    eventually(lambda: pool.state(run).is_final(), 300)
    assert pool.read(run).infrastructure_pid == taken
    names = Counter(state.name for state in pool.client.read_flow_run_states(run))
    assert (names["Running"], names["Completed"]) == (2, 1)
    assert pool.project.notes.count("end") == 1
    assert len([found for found in pool.page(run) if found.key == "progress"]) <= 2
    assert "Traceback" not in pool.log()
