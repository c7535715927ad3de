"""Runs the requests of a batch: on the workers of the target's pool, or here, one by one."""

import logging
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, cast
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import DeploymentResponse
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound

from flows.batching.board_writer import BoardWriter
from flows.batching.catalogue import Catalogue, Outcomes, catalogued
from flows.batching.outcomes import deleted, may_pass, not_run, outcome_in, outcome_of
from flows.batching.requests import Request
from flows.batching.runs import NEW_SECONDS, BatchRuns
from flows.batching.sharding import Shards, are_worth_it, find_shards, is_shard
from flows.running.checking import RecordedFlow
from flows.running.signature import renamed
from safelight.client.asking import patient_client
from safelight.errors import (
    ContractMismatchError,
    DependencyMissingError,
    InvalidFieldValueError,
)
from safelight.naming import BETWEEN, run_name
from safelight.progress import (
    step,
)
from safelight.provenance.batches import BatchOutcome

LOG = logging.getLogger(__name__)
_MESSAGE = re.compile(r"\[([A-Z_]+)\] (.*)\. Fix: (.*)\.", re.DOTALL)
MOST_RUNS = 2000
"""Requests of a batch on workers that may have a flow run each; more share runs, as shards."""
Where = Literal["auto", "workers", "here"]


@dataclass
class Dispatch:
    """A batch under way."""

    target: RecordedFlow[...]
    """The flow that each request runs."""
    given: InitVar[Sequence[Request]]
    """All requests."""
    key: str
    """Names the batch; the same key finds the runs again."""
    parallel: int
    """Requests under way at once."""
    retries: int
    """More tries for a request whose failure may pass."""
    shards: bool | None = False
    """On workers: many requests a flow run, instead of one. None: where it is worth it."""
    ended: Callable[[BatchOutcome], None] | None = None
    """Told of each outcome as it comes; of a batch that goes on, also of those from before."""
    board: BoardWriter | None = None
    """What people see meanwhile; None of a batch of very many."""
    requests: Catalogue = field(init=False)
    """All of them, on disk."""

    def __post_init__(self, given: Sequence[Request]) -> None:
        """Catalogue the requests."""
        self.requests = catalogued(given)

    @property
    def outcomes(self) -> Outcomes:
        """Of the finished requests, by number."""
        return self.requests.outcomes

    def run(self, deployment: DeploymentResponse | None) -> None:
        """Run everything that is not finished, on the deployment's workers or in this process.

        Raises:
            StopRequestedError: the batch was asked to stop; its runs are asked as well.
        """
        if deployment is None:
            self._run_here()
            return
        with patient_client() as client:
            runs = BatchRuns(client, self.key)
            shards = self._shards(runs, deployment)
            if shards is not None:
                Shards(self, runs, shards, self.target.name).run()
            else:
                _Workers(self, runs, deployment).run()

    def _shards(self, runs: BatchRuns, target: DeploymentResponse) -> DeploymentResponse | None:
        """The deployment of shards, when requests go by those; None for a run each."""
        if len(self.requests) > MOST_RUNS:
            return self._many_shards(runs, target)
        if self.shards is not None:
            return find_shards(runs.client, target) if self.shards else None
        living = next(runs.living(), None)  # this batch goes on in the way in which it began
        if not (is_shard(living) if living else are_worth_it(self.target.name, self.requests)):
            return None
        try:
            return find_shards(runs.client, target)
        except DependencyMissingError as missing:
            LOG.info("a flow run for each request: %s", missing.problem)
            return None

    def _many_shards(self, runs: BatchRuns, target: DeploymentResponse) -> DeploymentResponse:
        if self.shards is False:
            raise InvalidFieldValueError(
                f"the batch has {len(self.requests)} requests, and with a flow run for each there "
                f"are at most {MOST_RUNS}",
                "leave out shards, or split it into several batches",
            )
        return find_shards(runs.client, target)

    def finished(self, request: Request, outcome: BatchOutcome) -> None:
        """Enter the outcome of a request, and report progress."""
        self.outcomes[request.number] = outcome
        if self.board is not None:
            self.board.ended(outcome)
        if self.ended is not None:
            self.ended(outcome)
        step(len(self.outcomes), len(self.requests))

    def begun(self, request: Request, run_id: str = "") -> None:
        """A request is under way."""
        if self.board is not None:
            self.board.begun(request, run_id)

    def reinstate(self, outcomes: Iterable[tuple[int, str]]) -> None:
        """Enter outcomes from before, by number and as JSON, and report progress."""
        self.outcomes.enter(outcomes)
        if self.board is not None:
            self.board.reinstated(self.outcomes)
        if self.ended is not None:
            for outcome in self.outcomes.in_order():
                self.ended(outcome)
        step(len(self.outcomes), len(self.requests))

    def _run_here(self) -> None:
        for request in self.requests:
            step(len(self.outcomes), len(self.requests))
            self.begun(request)
            outcome = self._called(request, 0)
            for attempt in range(1, self.retries + 1):
                if not may_pass(outcome):
                    break
                outcome = self._called(request, attempt)
            self.finished(request, outcome)

    def _called(self, request: Request, attempt: int) -> BatchOutcome:
        started = time.monotonic()
        own = renamed(self.target, f"{request.identity}-{attempt}")
        state = cast("State[Any]", own(**request.parameters, return_state=True))
        seconds = round(time.monotonic() - started, 2)
        return outcome_in(request, state, str(state.state_details.flow_run_id), seconds)


def find_workers(target: str, where: Where) -> DeploymentResponse | None:
    """The deployment whose workers run the requests; None when they run in this process.

    A run never waits for a work pool that it, or a run that waits for it, takes a place of: with
    every place taken by waiting batches, none of them would ever go on.

    Raises:
        DependencyMissingError: workers were asked for, and the target has no deployment with any.
        ContractMismatchError: workers were asked for, and this run is in their way.
    """
    if where == "here":
        return None
    with patient_client() as client:
        try:
            deployment = client.read_deployment_by_name(f"{target}/{target}")
        except ObjectNotFound:
            deployment = None
        if deployment is None or deployment.work_pool_name is None:
            if where == "auto":
                return None
            raise DependencyMissingError(
                f"the server has no deployment {target}/{target} with a work pool",
                "run: safelight deploy, or set where to here",
            )
        if deployment.work_pool_name in _occupied(client):
            if where == "auto":
                return None
            raise ContractMismatchError(
                f"the batch itself runs in work pool {deployment.work_pool_name}, whose workers "
                f"are to run {target}; it would wait for its own place",
                "run the batch in another work pool, or set where to auto",
            )
        return deployment


def _occupied(client: SyncPrefectClient) -> frozenset[str]:
    """Work pools in which this run, and those that wait for it, take a place."""
    pools: set[str] = set()
    context = FlowRunContext.get()
    flow_run = context.flow_run if context else None
    while flow_run is not None:
        flow_run = client.read_flow_run(flow_run.id)
        if flow_run.work_pool_name is not None:
            pools.add(flow_run.work_pool_name)
        if flow_run.parent_task_run_id is None:
            break
        parent = client.read_task_run(flow_run.parent_task_run_id).flow_run_id
        flow_run = client.read_flow_run(parent) if parent else None
    return frozenset(pools)


@dataclass
class _Job:
    request: Request
    attempt: int
    """Over all runs of the batch; part of the idempotency key."""
    tries: int = 0
    """In this run of the batch."""
    started: float = 0.0
    """By the monotonic clock; 0 for a run that was there before."""


class _Workers:
    """Creates flow runs and waits for them; what it knows is on the server, so it may die."""

    def __init__(self, dispatch: Dispatch, runs: BatchRuns, deployment: DeploymentResponse) -> None:
        self.batch = dispatch
        self._runs = runs
        self._deployment = deployment
        self.waiting: deque[_Job] = deque()
        self.running: dict[UUID, _Job] = {}

    def run(self) -> None:
        self._find_earlier()
        self._runs.follow(self)

    def _find_earlier(self) -> None:
        asked_for = self._runs.asked_for()
        newest: dict[str, tuple[int, FlowRun]] = {}
        tries = Counter[str]()
        for flow_run in self._runs.made():
            identity, attempt = _parts(flow_run.idempotency_key or "")
            if attempt >= newest.get(identity, (0, None))[0]:
                newest[identity] = attempt, flow_run
            tries[identity] += _since(flow_run, asked_for)
        for request in self.batch.requests:
            attempt, flow_run = newest.get(request.identity, (-1, None))
            tried = tries[request.identity]
            if flow_run is None or flow_run.state is None:
                self.waiting.append(_Job(request, attempt + 1))
            elif not flow_run.state.is_final():
                self._runs.take_up(flow_run)
                self.running[flow_run.id] = _Job(request, attempt, max(tried - 1, 0))
                self.batch.begun(request, str(flow_run.id))
            else:
                outcome = outcome_of(request, flow_run)
                if _since(flow_run, asked_for) and self._stands(flow_run.state, outcome, tried - 1):
                    self.batch.finished(request, outcome)
                elif outcome.state == "succeeded":
                    reused = outcome.model_copy(update={"reused": True})
                    self.batch.finished(request, reused)
                else:
                    self.waiting.append(_Job(request, attempt + 1, tried))

    def _stands(self, state: State[Any], outcome: BatchOutcome, tries: int) -> bool:
        """Whether an outcome counts that this batch had before it was interrupted."""
        if outcome.state == "succeeded":
            return True
        lost = state.is_completed()  # its results were deleted
        return not lost and not (may_pass(outcome) and tries < self.batch.retries)

    def start_next(self) -> None:
        """Create the run of a request."""
        job = self.waiting.popleft()
        try:
            run_id = self._created(job)
        except InvalidFieldValueError as refused:  # what the flow accepts, the form may refuse
            self.batch.finished(job.request, not_run(job.request, refused))
        else:
            self.running[run_id] = replace(job, started=time.monotonic())
            self.batch.begun(job.request, str(run_id))

    def _created(self, job: _Job) -> UUID:
        """Create the run of a request, or find it when it was created before."""
        target, request = self.batch.target.name, job.request
        return self._runs.create(
            self._deployment,
            task=f"{target}/{self._deployment.name}",
            where=request.where,
            key=f"{request.identity}:{job.attempt}",
            name=BETWEEN.join((run_name(target, request.parameters), request.where)),
            parameters=request.parameters,
        )

    def collected(self) -> bool:
        """Whether a run has ended; its outcome is entered, or its next try is queued."""
        ids = list(self.running)
        found = self._runs.read(ids)
        ended = False
        for run_id in ids:
            flow_run = found.get(run_id)
            if flow_run is not None and not (flow_run.state and flow_run.state.is_final()):
                continue
            job = self.running[run_id]
            if flow_run is None and time.monotonic() - job.started < NEW_SECONDS:
                continue
            ended = True
            del self.running[run_id]
            outcome = (
                not_run(job.request, deleted(), str(run_id))
                if flow_run is None
                else outcome_of(job.request, flow_run)
            )
            if may_pass(outcome) and job.tries < self.batch.retries:
                self.waiting.append(_Job(job.request, job.attempt + 1, job.tries + 1))
            else:
                self.batch.finished(job.request, outcome)
        return ended


def _parts(key: str) -> tuple[str, int]:
    _, identity, attempt = [*key.split(":"), "", "", ""][:3]
    return (identity, int(attempt)) if attempt.isdecimal() else ("", -1)


def _since(flow_run: FlowRun, moment: datetime | None) -> bool:
    """Whether a run was made then or later; both times are the server's."""
    return moment is not None and flow_run.created is not None and flow_run.created >= moment
