"""Which runs are nobody's, told from what stands on them."""

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from uuid import uuid4

import pytest
from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import State

from safelight.pool.orphans import LOOK_SECONDS, Leases, granted_restarts, is_orphan
from safelight.pool.ownership import (
    EXPIRE_SECONDS,
    LEASE_LABEL,
    Claim,
    Owner,
    claim_of,
    loss,
    released,
)
from safelight.process_identity import Place, here, own_start, started
from tests.prefect_pool import Pool

GONE = 2**22 + 1
"""Above every process id."""
LIVING = Owner(
    "host", os.getpid(), own_start(), os.getpid(), own_start(), here(), Claim("someone", 3)
)
DEAD = replace(LIVING, pid=GONE, worker_pid=GONE)


def run(
    owner: Owner | str | None, kind: StateType = StateType.RUNNING, lease: str | None = None
) -> FlowRun:
    return FlowRun(
        id=uuid4(),
        flow_id=uuid4(),
        state=State(type=kind),
        infrastructure_pid=None if owner is None else str(owner),
        labels={} if lease is None else {LEASE_LABEL: lease},
    )


def test_an_owner_is_read_as_it_was_written():
    assert Owner.parse(str(LIVING)) == LIVING
    assert str(LIVING).split(":")[:2] == ["host", str(os.getpid())]


@pytest.mark.parametrize("text", [None, "", "host:12", "a:b:c:d:e:f:g:h:i", "released:4"])
def test_what_is_no_owner_is_none(text: str | None):
    assert Owner.parse(text) is None


def test_where_its_numbers_count_the_processes_decide_at_once():
    assert not is_orphan(run(LIVING), expired=False)
    assert is_orphan(run(DEAD), expired=False)


def test_who_lives_and_stands_still_has_lost_the_run():
    assert is_orphan(run(LIVING), expired=True)


def test_a_number_that_was_given_again_is_another_process():
    reused = replace(LIVING, start=own_start() - 1, worker_start=own_start() - 1)
    assert is_orphan(run(reused), expired=False)


def test_a_worker_that_lives_sees_to_its_dead_process_itself():
    assert not is_orphan(run(replace(LIVING, pid=GONE)), expired=False)


@pytest.mark.parametrize("place", [replace(here(), boot="another"), replace(here(), namespace="1")])
@pytest.mark.parametrize("owner", [LIVING, DEAD])
@pytest.mark.parametrize("expired", [True, False])
def test_elsewhere_the_lease_decides(place: Place, owner: Owner, expired: bool):
    assert is_orphan(run(replace(owner, place=place)), expired) is expired


@pytest.mark.parametrize("owner", [None, "host:12", LIVING, DEAD, released(2)])
@pytest.mark.parametrize("expired", [True, False])
def test_a_run_that_is_being_started_has_an_owner_that_is_not_noted(
    owner: Owner | str | None, expired: bool
):
    assert is_orphan(run(owner, StateType.PENDING), expired) is expired


def test_a_run_that_was_taken_from_its_owner_is_nobodys():
    assert is_orphan(run(released(2)), expired=False)


def test_a_lease_expires_when_nothing_changes():
    leases, found = Leases(), run(LIVING, lease="a")
    steps = int(EXPIRE_SECONDS / LOOK_SECONDS)
    for step in range(steps):
        leases.look([found], step * LOOK_SECONDS)
        assert not leases.expired(found)
    leases.look([found], steps * LOOK_SECONDS)
    assert leases.expired(found)


@pytest.mark.parametrize("change", ["lease", "state", "owner"])
def test_every_sign_of_the_owner_keeps_a_lease(change: str):
    leases, found = Leases(), run(LIVING, lease="a")
    for step in range(20):
        if change == "lease":
            found.labels = {LEASE_LABEL: str(step)}
        elif change == "state":
            found.state_id = uuid4()
        else:
            found.infrastructure_pid = released(step)
        leases.look([found], step * LOOK_SECONDS)
        assert not leases.expired(found)


def test_time_in_which_nobody_looked_does_not_count():
    leases, found = Leases(), run(LIVING)
    leases.look([found], 0)
    leases.look([found], 10_000)  # this machine slept
    assert not leases.expired(found)
    leases.look([found], 10_000 + LOOK_SECONDS)
    leases.look([found], 10_000 + 2 * LOOK_SECONDS)
    leases.forget()  # the server was away
    leases.look([found], 10_000 + 3 * LOOK_SECONDS)
    assert not leases.expired(found)


@pytest.mark.parametrize(
    ("noted", "lost"),
    [
        (None, False),
        (released(2), False),
        (replace(LIVING, claim=Claim("me", 3)), False),
        (replace(LIVING, claim=Claim("other", 2)), False),
        (LIVING, True),
        (released(3), True),
        (replace(LIVING, claim=Claim("me", 4)), True),
    ],
)
def test_a_higher_number_or_another_holder_of_ours_loses_the_run(
    noted: Owner | str | None, lost: bool
):
    assert bool(loss(run(noted), Claim("me", 3))) is lost


@pytest.mark.parametrize("kind", list(StateType))
def test_a_run_that_is_over_is_lost(kind: StateType):
    final = {StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED}
    assert bool(loss(run(None, kind), Claim("me", 1))) is (kind in final)
    assert loss(None, Claim("me", 1)) == "it was deleted"


def test_each_claim_has_a_higher_number():
    assert [Claim.on(run(noted)).number for noted in (None, "host:1", LIVING, released(7))] == [
        *(1, 1, 4, 8)
    ]
    assert claim_of(run("host:1")).number == 0


def test_remains_that_nobody_collected_are_no_process():
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as ended:
        assert ended.stdout is not None
        ended.stdout.read()  # it is over, and not waited for
        while started(ended.pid) is not None:  # the kernel has its last word
            pass
    assert started(GONE) is None


@pytest.mark.parametrize(("of_run", "granted"), [(None, 7), ({"restarts": 2}, 2)])
def test_a_deployment_grants_restarts_unless_the_run_says_otherwise(
    pool: Pool, of_run: dict[str, object] | None, granted: int
):
    deployment = pool.deploy("pid", restarts=7)
    made = pool.client.create_flow_run_from_deployment(deployment, job_variables=of_run)

    async def asked() -> int:
        async with get_client() as client:
            return await granted_restarts(client, made)

    assert asyncio.run(asked()) == granted


@pytest.mark.parametrize(
    ("said", "granted"),
    [
        *((word, 0) for word in ("many", "", "9" * 5000, [], {"a": 1}, -1, 2.5, float("inf"))),
        *((word, 0) for word in (None, 0)),
        *(("4", 4), (4.0, 4)),
    ],
)
def test_what_is_no_number_of_restarts_grants_none(said: object, granted: int):
    made = run(None)
    made.job_variables = {"restarts": said}
    nobody = PrefectClient("http://127.0.0.1:9/api")  # who is not asked
    assert asyncio.run(granted_restarts(nobody, made)) == granted
