"""The flow runs that a batch makes: created, asked about and cancelled through the Prefect API."""

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sized
from datetime import datetime
from typing import Protocol
from uuid import UUID

from prefect import Task
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterIdempotencyKey,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Pending
from prefect.types import KeyValueLabels
from pydantic import JsonValue

from flows.batching.catalogue import Catalogue
from flows.batching.requests import Request
from flows.running.asking import own_keys
from safelight.client.asking import patient_client
from safelight.errors import PipelineError
from safelight.naming import BATCH_LABEL
from safelight.observing.correlating import labels
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
"""How long a cancelled batch asks a server that does not answer to cancel its runs."""
NEW_SECONDS = 10.0
"""A run this young that the server does not list is not listed yet: a copy of its database lags."""
PAGE = 100
"""Flow runs asked for at once."""
TAG = "batch:"


class Batch(Protocol):
    """What is asked for, and what has become of it."""

    @property
    def requests(self) -> Catalogue:
        """All of them."""
        ...

    @property
    def parallel(self) -> int:
        """Runs under way at once."""
        ...

    @property
    def retries(self) -> int:
        """More tries for a request whose failure may pass."""
        ...

    @property
    def outcomes(self) -> Mapping[int, BatchOutcome]:
        """Of the finished requests, by number."""
        ...

    def begun(self, request: Request, run_id: str = "") -> None:
        """A request is under way."""
        ...

    def finished(self, request: Request, outcome: BatchOutcome) -> None:
        """Enter the outcome of a request, and report progress."""
        ...

    def reinstate(self, outcomes: Iterable[tuple[int, str]]) -> None:
        """Enter outcomes from before, by number and as JSON, and report progress."""
        ...


class Work(Protocol):
    """A way to cut a batch into flow runs."""

    @property
    def batch(self) -> Batch:
        """The whole of it."""
        ...

    @property
    def waiting(self) -> Sized:
        """What no run has yet."""
        ...

    @property
    def running(self) -> Collection[UUID]:
        """Runs under way."""
        ...

    def start_next(self) -> None:
        """Create a run, and count it among those under way."""
        ...

    def collected(self) -> bool:
        """Whether a run has ended; what it came to is entered, or waits again."""
        ...


class BatchRuns:
    """What a batch asks the server about itself and the runs that it makes."""

    def __init__(self, client: SyncPrefectClient, batch: str) -> None:
        self.client = client
        """Of the server; one with other patience takes its place in the end."""
        self.batch = batch
        """Names the batch; its runs have it as a tag."""
        context = FlowRunContext.get()
        self._own = context.flow_run.id if context and context.flow_run else None
        self._starting: str | None = None
        """Idempotency key of a run whose creation was not confirmed."""

    def create(
        self,
        deployment: DeploymentResponse,
        task: str,
        where: str,
        key: str,
        name: str,
        parameters: dict[str, JsonValue],
    ) -> UUID:
        """Create a run of the batch, or find it when it was created before.

        Args:
            deployment: what runs.
            task: how the batch's graph calls it.
            where: which part of the batch it is, for the graph.
            key: names the run within the batch.
            name: of the run.
            parameters: as its flow takes them.

        Raises:
            InvalidFieldValueError: the deployment's form refuses them.
        """
        unique = f"{self.batch}:{key}"
        self._starting = unique
        parent = None
        if self._own is not None:
            parent = self.client.create_task_run(
                Task(fn=_nothing, name=task),
                flow_run_id=self._own,
                dynamic_key=unique,
                name=f"{task} {where}",
                state=Pending(),
            ).id
        made = self.client.create_flow_run_from_deployment(
            deployment.id,
            parameters=parameters,
            name=name,
            tags=[TAG + self.batch, *own_keys()],
            idempotency_key=unique,
            parent_task_run_id=parent,
            labels={**labels(), **self._labels()},
        )
        self.take_up(made)
        return made.id

    def take_up(self, flow_run: FlowRun) -> None:
        """Say on a run that it belongs to this run of the batch, where an earlier one made it."""
        labels = self._labels()
        if any(flow_run.labels.get(name) != value for name, value in labels.items()):
            self.client.update_flow_run_labels(flow_run.id, labels)

    def _labels(self) -> KeyValueLabels:
        return {} if self._own is None else {BATCH_LABEL: str(self._own)}

    def follow(self, work: Work) -> None:
        """Start what waits as places come free, and collect what has ended, until all is done.

        Raises:
            StopRequestedError: the batch was asked to stop; its runs are asked as well.
        """
        try:
            while work.waiting or work.running:
                while work.waiting and len(work.running) < work.batch.parallel:
                    work.start_next()
                    self._starting = None
                if not work.collected():
                    time.sleep(POLL_SECONDS)
                step(len(work.batch.outcomes), len(work.batch.requests))
        except BaseException:  # also the signal of a worker that ends this process
            with patient_client(CANCEL_SECONDS, stops=False) as client:
                self.client = client
                if self.is_over():
                    self.cancel(work.running)
            raise

    def made(self) -> Iterator[FlowRun]:
        """All runs that this batch ever made."""
        yield from self._listed(FlowRunFilter(tags=self._tagged()))

    def living(self) -> Iterator[FlowRun]:
        """Those of them that have not ended."""
        over = FlowRunFilterStateType(not_any_=list(TERMINAL_STATES))
        wanted = FlowRunFilter(tags=self._tagged(), state=FlowRunFilterState(type=over))
        yield from self._listed(wanted)

    def _tagged(self) -> FlowRunFilterTags:
        return FlowRunFilterTags(all_=[TAG + self.batch])

    def _listed(self, wanted: FlowRunFilter) -> Iterator[FlowRun]:
        for offset in range(0, 10**9, PAGE):
            page = self.client.read_flow_runs(flow_run_filter=wanted, limit=PAGE, offset=offset)
            yield from page
            if len(page) < PAGE:
                return

    def asked_for(self) -> datetime | None:
        """When this batch was asked for; what it has made since then it need not make again."""
        return None if self._own is None else asked_for(self.client, self._own)

    def read(self, ids: list[UUID]) -> dict[UUID, FlowRun]:
        """Those of the runs that the server has.

        Raises:
            StopRequestedError: the batch itself was cancelled.
        """
        asked = [*ids, *([self._own] if self._own else [])]
        found: dict[UUID, FlowRun] = {}
        for start in range(0, len(asked), PAGE):
            wanted = FlowRunFilter(id=FlowRunFilterId(any_=asked[start : start + PAGE]))
            for flow_run in self.client.read_flow_runs(flow_run_filter=wanted, limit=PAGE):
                found[flow_run.id] = flow_run
        own = found.pop(self._own, None) if self._own else None
        state = own.state if own is not None else None
        if state is not None and (state.is_cancelling() or state.is_cancelled()):
            raise StopRequestedError("the batch was cancelled")
        return found

    def is_over(self) -> bool:
        """Whether nobody wants the batch any more: cancelled, deleted or ended by hand."""
        if stop_requested() and not is_given_up():  # else whoever has it now may go on with it
            return stop_reason() is StopReason.CANCEL
        if self._own is None:
            return False
        try:
            own = self.client.read_flow_run(self._own)
        except ObjectNotFound:
            return True
        except PipelineError as error:
            LOG.warning("whether the batch was cancelled is not known: %s", error)
            return False
        return own.state is not None and (own.state.is_cancelling() or own.state.is_final())

    def cancel(self, ids: Iterable[UUID]) -> None:
        """Ask runs to stop, also one whose creation was not confirmed.

        One question that fails keeps no other from it.
        """
        for run_id in [*ids, *self._unconfirmed()]:
            try:
                self.client.set_flow_run_state(
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
            found = self.client.read_flow_runs(flow_run_filter=FlowRunFilter(idempotency_key=key))
        except PipelineError as error:
            LOG.warning("run %s of the batch was not cancelled: %s", self._starting, error)
            return []
        return [flow_run.id for flow_run in found]


def asked_for(client: SyncPrefectClient, flow_run: UUID) -> datetime | None:
    """When a run was asked for: made, or retried by somebody."""
    return asked_for_at(client.read_flow_run_states(flow_run))


def _nothing() -> None:
    """Stands in the batch's graph for a run on another machine."""
