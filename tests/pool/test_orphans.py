"""Which runs are nobody's, told from what the server knows of them."""

import os
import socket
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import State

from safelight.pool.orphans import UNNAMED_SECONDS, WORKER_LABEL, is_orphan

HERE = socket.gethostname()
GONE = 2**22 + 1
"""Above every process id."""


def run(
    kind: StateType, owner: str | None, infrastructure: str | None = None, age: float = 0
) -> FlowRun:
    state = State(type=kind, timestamp=datetime.now(UTC) - timedelta(seconds=age))
    return FlowRun(
        id=uuid4(),
        flow_id=uuid4(),
        state=state,
        infrastructure_pid=infrastructure,
        labels={WORKER_LABEL: owner} if owner else {},
    )


@pytest.mark.parametrize("owner", ["me", "online", "offline"])
def test_on_this_machine_the_process_decides(owner: str):
    alive = run(StateType.RUNNING, owner, f"{HERE}:{os.getpid()}")
    gone = run(StateType.RUNNING, owner, f"{HERE}:{GONE}")
    assert not is_orphan(alive, "me", {"online"})
    assert is_orphan(gone, "me", {"online"})


@pytest.mark.parametrize(("owner", "orphan"), [("me", False), ("online", False), ("offline", True)])
def test_elsewhere_the_worker_decides(owner: str, orphan: bool):
    assert is_orphan(run(StateType.RUNNING, owner, "elsewhere:1"), "me", {"online"}) is orphan


@pytest.mark.parametrize("kind", [StateType.PENDING, StateType.CANCELLING])
@pytest.mark.parametrize("owner", [None, "me", "online", "offline"])
def test_a_run_left_before_it_had_a_process_is_found_by_its_age(kind: StateType, owner: str | None):
    assert not is_orphan(run(kind, owner, age=1), "me", {"online"})
    assert is_orphan(run(kind, owner, age=UNNAMED_SECONDS + 1), "me", {"online"})


@pytest.mark.parametrize(("owner", "orphan"), [("me", True), ("online", False), ("offline", True)])
def test_a_running_run_without_a_process_belongs_to_its_worker(owner: str, orphan: bool):
    found = run(StateType.RUNNING, owner, age=UNNAMED_SECONDS + 1)
    assert is_orphan(found, "me", {"online"}) is orphan
    assert not is_orphan(run(StateType.RUNNING, owner, age=1), "me", {"online"})
