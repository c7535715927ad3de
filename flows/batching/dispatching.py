"""Runs the requests of a batch: on the workers of the target's pool, or here, one by one."""

import logging
import re
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, cast
from uuid import UUID

from prefect import Task
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterIdempotencyKey,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import DeploymentResponse
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Pending

from flows.batching.outcomes import deleted, may_pass, not_run, outcome_in, outcome_of
from flows.batching.requests import Request
from flows.running.recorded import RecordedFlow
from flows.running.signature import renamed
from safelight.client.asking import patient_client
from safelight.errors import (
    ContractMismatchError,
    DependencyMissingError,
    InvalidFieldValueError,
    PipelineError,
)
from safelight.naming import BETWEEN, run_name
from safelight.progress import (
    StopReason,
    StopRequestedError,
    is_given_up,
    step,
    stop_reason,
    stop_requested,
)
from safelight.provenance.batches import BatchOutcome
from safelight.restarts import asked_for_at

LOG = logging.getLogger(__name__)
POLL_SECONDS = 0.5
CANCEL_SECONDS = 60.0
"""How long a cancelled batch asks a server that does not answer to cancel its requests."""
NEW_SECONDS = 10.0
"""A run this young that the server does not list is not listed yet: a copy of its database lags."""
PAGE = 100
"""Flow runs asked for at once."""
TAG = "batch:"
_MESSAGE = re.compile(r"\[([A-Z_]+)\] (.*)\. Fix: (.*)\.", re.DOTALL)
Where = Literal["auto", "workers", "here"]


@dataclass
class Dispatch:
    """A batch under way."""

    target: RecordedFlow[...]
    """The flow that each request runs."""
    requests: Sequence[Request]
    """All of them."""
    key: str
    """Names the batch; the same key finds the runs again."""
    parallel: int
    """Requests under way at once."""
    retries: int
    """More tries for a request whose failure may pass."""
    outcomes: dict[int, BatchOutcome] = field(default_factory=dict[int, BatchOutcome])
    """Of the finished requests, by number."""

    def run(self, deployment: DeploymentResponse | None) -> None:
        """Run everything that is not finished, on the deployment's workers or in this process.

        Raises:
            StopRequestedError: the batch was asked to stop; its runs are asked as well.
        """
        if deployment is None:
            self._run_here()
            return
        with patient_client() as client:
            _Workers(self, client, deployment).run()

    def finished(self, request: Request, outcome: BatchOutcome) -> None:
        """Enter the outcome of a request, and report progress."""
        self.outcomes[request.number] = outcome
        step(len(self.outcomes), len(self.requests))

    def _run_here(self) -> None:
        for request in self.requests:
            step(len(self.outcomes), len(self.requests))
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

    def __init__(
        self, dispatch: Dispatch, client: SyncPrefectClient, deployment: DeploymentResponse
    ) -> None:
        self._dispatch = dispatch
        self._client = client
        self._deployment = deployment
        context = FlowRunContext.get()
        self._own = context.flow_run.id if context and context.flow_run else None
        self._waiting: deque[_Job] = deque()
        self._running: dict[UUID, _Job] = {}
        self._starting: str | None = None
        """Idempotency key of a run whose creation was not confirmed."""

    def run(self) -> None:
        self._find_earlier()
        try:
            while self._waiting or self._running:
                while self._waiting and len(self._running) < self._dispatch.parallel:
                    job = self._waiting.popleft()
                    self._start(job)
                if not self._collected():
                    time.sleep(POLL_SECONDS)
                step(len(self._dispatch.outcomes), len(self._dispatch.requests))
        except BaseException:  # also the signal of a worker that ends this process
            with patient_client(CANCEL_SECONDS, stops=False) as client:
                self._client = client
                if self._is_over():
                    self._cancel_all()
            raise

    def _find_earlier(self) -> None:
        asked_for = self._asked_for()
        newest: dict[str, tuple[int, FlowRun]] = {}
        tries = Counter[str]()
        for flow_run in self._tagged():
            identity, attempt = _parts(flow_run.idempotency_key or "")
            if attempt >= newest.get(identity, (0, None))[0]:
                newest[identity] = attempt, flow_run
            tries[identity] += _since(flow_run, asked_for)
        for request in self._dispatch.requests:
            attempt, flow_run = newest.get(request.identity, (-1, None))
            tried = tries[request.identity]
            if flow_run is None or flow_run.state is None:
                self._waiting.append(_Job(request, attempt + 1))
            elif not flow_run.state.is_final():
                self._running[flow_run.id] = _Job(request, attempt, max(tried - 1, 0))
            else:
                outcome = outcome_of(request, flow_run)
                if _since(flow_run, asked_for) and self._stands(flow_run.state, outcome, tried - 1):
                    self._dispatch.finished(request, outcome)
                elif outcome.state == "succeeded":
                    reused = outcome.model_copy(update={"reused": True})
                    self._dispatch.finished(request, reused)
                else:
                    self._waiting.append(_Job(request, attempt + 1, tried))

    def _stands(self, state: State[Any], outcome: BatchOutcome, tries: int) -> bool:
        """Whether an outcome counts that this batch had before it was interrupted."""
        if outcome.state == "succeeded":
            return True
        lost = state.is_completed()  # its results were deleted
        return not lost and not (may_pass(outcome) and tries < self._dispatch.retries)

    def _asked_for(self) -> datetime | None:
        """When this batch was asked for; what it has made since then it need not make again."""
        if self._own is None:
            return None
        return asked_for_at(self._client.read_flow_run_states(self._own))

    def _tagged(self) -> Iterator[FlowRun]:
        wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=[TAG + self._dispatch.key]))
        for offset in range(0, 10**9, PAGE):
            page = self._client.read_flow_runs(flow_run_filter=wanted, limit=PAGE, offset=offset)
            yield from page
            if len(page) < PAGE:
                return

    def _start(self, job: _Job) -> None:
        try:
            run_id = self._created(job)
        except InvalidFieldValueError as refused:  # what the flow accepts, the form may refuse
            self._dispatch.finished(job.request, not_run(job.request, refused))
        else:
            self._running[run_id] = replace(job, started=time.monotonic())
        self._starting = None

    def _created(self, job: _Job) -> UUID:
        """Create the run of a request, or find it when it was created before."""
        name = f"{self._dispatch.target.name}/{self._deployment.name}"
        key = f"{self._dispatch.key}:{job.request.identity}:{job.attempt}"
        parent = None
        self._starting = key
        if self._own is not None:
            parent = self._client.create_task_run(
                Task(fn=_nothing, name=name),
                flow_run_id=self._own,
                dynamic_key=key,
                name=f"{name} {job.request.where}",
                state=Pending(),
            ).id
        return self._client.create_flow_run_from_deployment(
            self._deployment.id,
            parameters=job.request.parameters,
            name=BETWEEN.join(
                (run_name(self._dispatch.target.name, job.request.parameters), job.request.where)
            ),
            tags=[TAG + self._dispatch.key],
            idempotency_key=key,
            parent_task_run_id=parent,
        ).id

    def _collected(self) -> bool:
        """Whether a run has ended; its outcome is entered, or its next try is queued."""
        ids = list(self._running)
        found = {flow_run.id: flow_run for flow_run in self._states(ids)}
        own = found.pop(self._own, None) if self._own else None
        if own is not None and own.state and (own.state.is_cancelling() or _cancelled(own)):
            raise StopRequestedError("the batch was cancelled")
        ended = False
        for run_id in ids:
            flow_run = found.get(run_id)
            if flow_run is not None and not (flow_run.state and flow_run.state.is_final()):
                continue
            job = self._running[run_id]
            if flow_run is None and time.monotonic() - job.started < NEW_SECONDS:
                continue
            ended = True
            del self._running[run_id]
            outcome = (
                not_run(job.request, deleted(), str(run_id))
                if flow_run is None
                else outcome_of(job.request, flow_run)
            )
            if may_pass(outcome) and job.tries < self._dispatch.retries:
                self._waiting.append(_Job(job.request, job.attempt + 1, job.tries + 1))
            else:
                self._dispatch.finished(job.request, outcome)
        return ended

    def _states(self, ids: list[UUID]) -> Iterator[FlowRun]:
        asked = [*ids, *([self._own] if self._own else [])]
        for start in range(0, len(asked), PAGE):
            wanted = FlowRunFilter(id=FlowRunFilterId(any_=asked[start : start + PAGE]))
            yield from self._client.read_flow_runs(flow_run_filter=wanted, limit=PAGE)

    def _is_over(self) -> bool:
        """Whether nobody wants the batch any more: cancelled, deleted or ended by hand."""
        if stop_requested() and not is_given_up():  # else whoever has it now may go on with it
            return stop_reason() is StopReason.CANCEL
        if self._own is None:
            return False
        try:
            own = self._client.read_flow_run(self._own)
        except ObjectNotFound:
            return True
        except PipelineError as error:
            LOG.warning("whether the batch was cancelled is not known: %s", error)
            return False
        return own.state is not None and (own.state.is_cancelling() or own.state.is_final())

    def _cancel_all(self) -> None:
        """Ask every run of the batch to stop; one question that fails keeps no other from it."""
        for run_id in [*self._running, *self._unconfirmed()]:
            try:
                self._client.set_flow_run_state(
                    run_id, Cancelling(message="its batch was cancelled")
                )
            except ObjectNotFound:
                continue
            except PipelineError as error:
                LOG.warning("run %s of the batch was not cancelled: %s", run_id, error)

    def _unconfirmed(self) -> list[UUID]:
        """The run whose creation was under way, when the server has made it."""
        if self._starting is None:
            return []
        key = FlowRunFilterIdempotencyKey(any_=[self._starting])
        try:
            found = self._client.read_flow_runs(flow_run_filter=FlowRunFilter(idempotency_key=key))
        except PipelineError as error:
            LOG.warning("run %s of the batch was not cancelled: %s", self._starting, error)
            return []
        return [flow_run.id for flow_run in found]


def _nothing() -> None:
    """Stands in the batch's graph for a run on another machine."""


def _parts(key: str) -> tuple[str, int]:
    _, identity, attempt = [*key.split(":"), "", "", ""][:3]
    return (identity, int(attempt)) if attempt.isdecimal() else ("", -1)


def _since(flow_run: FlowRun, moment: datetime | None) -> bool:
    """Whether a run was made then or later; both times are the server's."""
    return moment is not None and flow_run.created is not None and flow_run.created >= moment


def _cancelled(flow_run: FlowRun) -> bool:
    return flow_run.state is not None and flow_run.state.is_cancelled()
