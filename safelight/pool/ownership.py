"""Who runs a flow run, in a form that can be proved, and what tells that it is somebody else's.

The owner stands in the run's `infrastructure_pid`. Each take-over has a higher number than all
before it: who finds a higher one than its own has lost the run.
"""

import socket
from dataclasses import dataclass
from typing import Self
from uuid import uuid4

from prefect.client.schemas.objects import FlowRun

from safelight.process_identity import Place, here, lives

LEASE_LABEL = "safelight.lease"
"""Label of a run whose value its worker changes as long as it has the run."""
RENEW_SECONDS = 10.0
"""How often a worker renews the leases of its runs."""
EXPIRE_SECONDS = 40.0
"""A lease that does not change for so long while the server answers is nobody's."""
WORKER_ID = uuid4().hex[:12]
"""Of this process as a worker: another one at each start."""
_RELEASED = "released"
_PARTS = 9


@dataclass(frozen=True)
class Claim:
    """What a worker holds of a run: its own id, and the number of the take-over."""

    worker: str
    number: int

    @classmethod
    def on(cls, flow_run: FlowRun) -> "Claim":
        """This worker's claim on a run that it takes: one above the last."""
        return cls(WORKER_ID, claim_of(flow_run).number + 1)


@dataclass(frozen=True)
class Owner:
    """A process that runs a flow run, and its worker."""

    host: str
    pid: int
    start: int
    worker_pid: int
    worker_start: int
    place: Place
    claim: Claim

    def __str__(self) -> str:
        """As it stands on the run: `HOST:PID:...`."""
        numbers = (self.pid, self.start, self.worker_pid, self.worker_start)
        place, claim = self.place, self.claim
        return ":".join(
            map(
                str,
                (self.host, *numbers, place.boot, place.namespace, claim.worker, claim.number),
            )
        )

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        """Read what `str` gives; None for anything else."""
        parts = (text or "").split(":")
        if len(parts) != _PARTS or not all(parts[i].isdigit() for i in (1, 2, 3, 4, 8)):
            return None
        pid, start, worker_pid, worker_start = map(int, parts[1:5])
        place, claim = Place(parts[5], parts[6]), Claim(parts[7], int(parts[8]))
        return cls(parts[0], pid, start, worker_pid, worker_start, place, claim)

    @property
    def gone(self) -> bool | None:
        """Whether process and worker are both gone; None where their numbers mean nothing here."""
        if self.place != here():
            return None
        return not lives(self.pid, self.start) and not lives(self.worker_pid, self.worker_start)


def host_name() -> str:
    """The name of this machine, for people; it proves nothing."""
    return socket.gethostname().replace(":", "_")


def released(number: int) -> str:
    """What stands in place of an owner while a run is taken from it."""
    return f"{_RELEASED}:{number}"


def is_released(flow_run: FlowRun) -> bool:
    """Whether a run was taken from its owner and has none yet."""
    return (flow_run.infrastructure_pid or "").startswith(f"{_RELEASED}:")


def claim_of(flow_run: FlowRun) -> Claim:
    """The claim that stands on a run; number 0 when there is none."""
    text = flow_run.infrastructure_pid
    owner = Owner.parse(text)
    if owner is not None:
        return owner.claim
    name, _, number = (text or "").partition(":")
    return Claim("", int(number) if name == _RELEASED and number.isdigit() else 0)


def loss(flow_run: FlowRun | None, mine: Claim) -> str | None:
    """Why a run is not ours any more; None while it is.

    Args:
        flow_run: as the server has it; None when it has been deleted.
        mine: what we hold. A lower number on the run means that ours is not noted yet.
    """
    if flow_run is None:
        return "it was deleted"
    if flow_run.state is not None and flow_run.state.is_final():
        return f"it was ended as {flow_run.state.name}"
    found = claim_of(flow_run)
    if found.number >= mine.number and found != mine:
        return "another worker has it"
    return None
