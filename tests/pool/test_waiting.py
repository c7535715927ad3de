"""A waiting run says on its page what it waits for."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.states import Running, Scheduled

from safelight.pool import announcing
from safelight.pool.announcing import announce, announced
from safelight.pool.devices import Device
from safelight.pool.waiting import COUNTED, WaitingRoom, leads, reasons, say_why
from tests.prefect_pool import Pool, eventually

LONG_AGO = datetime.now(UTC) - timedelta(minutes=5)


def online(pool: Pool, worker: str, *devices: Device) -> None:
    pool.client.send_worker_heartbeat(pool.name, worker, heartbeat_interval_seconds=600)
    announce(pool.name, worker, devices)
    eventually(lambda: announced(pool.client, pool.name, [worker]))


def due(pool: Pool, minutes: int, **variables: object) -> UUID:
    """A run that should have begun some minutes after the first one."""
    at = Scheduled(scheduled_time=LONG_AGO + timedelta(seconds=minutes))
    return pool.client.create_flow_run_from_deployment(
        pool.deploy("pid"), state=at, job_variables=variables
    ).id


def told(pool: Pool) -> dict[UUID, str]:
    return reasons(pool.client, pool.name)


def test_each_run_is_told_its_own_reason(pool: Pool):
    plain = due(pool, 0)
    assert told(pool) == {plain: "no worker is online"}
    online(pool, "b", Device("cpu:0", "cpu", 64.0, ()), Device("cuda:0", "cuda", 12.0, ()))
    second = due(pool, 1)
    wide = due(pool, 2, device="cuda", min_vram_gib=24)
    apple = due(pool, 3, device="mps")
    third = due(pool, 4, device="cuda")
    assert told(pool) == {
        plain: "next in line, all devices are busy",
        second: "second in line, all devices are busy",
        wide: "no worker has a GPU of 24 GiB; the largest has 12",
        apple: "no worker has an Apple GPU",
        third: "third in line, all devices are busy",
    }
    queue = pool.client.read_work_queue_by_name("default", work_pool_name=pool.name)
    pool.client.update_work_queue(queue.id, is_paused=True)
    assert "the queue default is paused" in told(pool)[plain]
    pool.client.update_work_queue(queue.id, is_paused=False)
    pool.client.update_work_pool(pool.name, WorkPoolUpdate(is_paused=True))
    assert f"prefect work-pool resume {pool.name}" in told(pool)[wide]


def test_one_question_finds_what_all_workers_told(pool: Pool, monkeypatch: pytest.MonkeyPatch):
    names = [f"worker {number}" for number in range(6)]
    for number, name in enumerate(names):
        announce(pool.name, name, [Device("cpu:0", "cpu", 1.0 + number, ())])
    for _ in range(3):
        announce(pool.name, names[0], [Device("cpu:0", "cpu", 64.0, ())])

    def latest() -> dict[str, float]:
        found = announced(pool.client, pool.name, [*names, "silent"])
        return {name: each.devices["cpu:0"] for name, each in found.items()}

    expected = {name: number + 1.0 for number, name in enumerate(names)} | {names[0]: 64.0}
    eventually(lambda: latest() == expected)
    monkeypatch.setattr(announcing, "PAGE", 2)  # one page has not everyone
    assert latest() == expected
    assert announced(pool.client, pool.name, []) == {}


def test_a_long_line_is_told_without_numbers(pool: Pool):
    online(pool, "a", Device("cpu:0", "cpu", 64.0, ()))
    runs = [due(pool, place) for place in range(COUNTED + 2)]
    said = told(pool)
    assert "tenth in line" in said[runs[9]]
    assert said[runs[10]] == said[runs[11]]
    assert "behind 10 others" in said[runs[11]]


def test_the_page_follows_and_is_cleared_when_the_run_begins(pool: Pool):
    online(pool, "a", Device("cpu:0", "cpu", 64.0, ()))
    first, second = due(pool, 0), due(pool, 1)
    room = WaitingRoom(pool.name)
    room.look(pool.client)
    (page,) = pool.page(second)
    assert "**Waiting**: second in line" in str(page.data)
    pool.client.set_flow_run_state(first, Running(), force=True)
    room.look(pool.client)
    assert pool.page(first) == []
    (page,) = pool.page(second)
    assert "next in line" in str(page.data)
    pool.client.delete_artifact(page.id)  # somebody did
    pool.client.delete_flow_run(second)
    room.look(pool.client)
    assert told(pool) == {}


def test_a_worker_says_it_of_its_pool_unless_another_one_does(pool: Pool):
    run = due(pool, 0)
    say_why(pool.name, "a", {})
    assert "no worker is online" in str(pool.page(run)[0].data)
    online(pool, "a")
    other: dict[str, WaitingRoom] = {}
    say_why(pool.name, "b", other)
    assert other == {}


@pytest.mark.parametrize(
    ("worker", "expected"),
    [("a", True), ("b", False), pytest.param("c", False, marks=pytest.mark.soak)],
)
def test_one_worker_of_a_pool_tells(pool: Pool, worker: str, expected: bool):
    online(pool, "b")
    online(pool, "a")
    assert leads(pool.client, pool.name, worker) is expected


def test_a_run_that_is_not_due_does_not_wait(pool: Pool, api: SyncPrefectClient):
    later = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(hours=1))
    api.create_flow_run_from_deployment(pool.deploy("pid"), state=later)
    assert told(pool) == {}
