"""Runs the requests of a batch in shards, each a flow run that works through many of them."""

import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from statistics import median
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound

from flows.batching.durations import Durations
from flows.batching.outcomes import crashed, deleted, may_pass, not_run, outcome_left
from flows.batching.requests import Request
from flows.batching.runs import NEW_SECONDS, Batch, BatchRuns
from flows.batching.shards import SHARDS, Shard, Sharded, Sizes, keep_shard, load_shard, run_id_of
from safelight.errors import DependencyMissingError
from safelight.naming import BETWEEN
from safelight.provenance.batches import BatchOutcome

FLOW = "shard"
FEWEST = 24
"""Requests of a batch that is cut into shards unless told otherwise: fewer gain little by it."""
LONG_SECONDS = 60.0
"""Requests that take so long have a run each: it costs little then, and shows more."""
ALIKE = ("model", "width", "height", "scheduler", "vae", "loras", "embeddings", "controlnet_model")
"""Parameters whose change costs a model or its set-up; requests that share them stand together."""


@dataclass(frozen=True)
class _Job:
    request: Request
    attempt: int
    """Over all runs of the batch; part of the id of the request's manifest."""
    deaths: int = 0
    """Shards whose process died at it, in this run of the batch."""
    alone: bool = False
    """A process died while it and others were under way: one at a time tells of which."""


@dataclass
class _UnderWay:
    jobs: deque[_Job]
    """Those without an outcome yet, in the order in which they run."""
    together: bool
    """Whether several of them may be under way at once."""
    started: float = field(default_factory=time.monotonic)


class Shards:
    """Cuts what is left into shards as places come free; all it knows is on server and in store."""

    def __init__(
        self,
        batch: Batch,
        runs: BatchRuns,
        deployment: DeploymentResponse,
        flow: str,
    ) -> None:
        self.batch = batch
        self._runs = runs
        self._deployment = deployment
        self._flow = flow
        self.waiting: deque[_Job] = deque()
        self.running: dict[UUID, _UnderWay] = {}
        known = Durations(flow)
        each = [known.expected(request.parameters) for request in batch.requests]
        self._sizes = Sizes(max((one for one in each if one is not None), default=None))

    def run(self) -> None:
        """Run everything that is not finished.

        Raises:
            StopRequestedError: the batch was asked to stop; its shards are asked as well.
        """
        self._find_earlier()
        self._runs.follow(self)

    def _find_earlier(self) -> None:
        asked_for = self._runs.asked_for()
        left: dict[str, _Job] = {}
        for request in self.batch.requests:
            job, last = _Job(request, 0), None
            while (found := self._left_by(job)) is not None:
                last, job = found, _Job(request, job.attempt + 1)
            if last is None:
                left[self._name(job)] = job
                continue
            outcome, ended = last
            ours = asked_for is not None and ended >= asked_for
            if outcome.state == "succeeded":
                self.batch.finished(request, outcome.model_copy(update={"reused": not ours}))
            elif ours and not may_pass(outcome):
                self.batch.finished(request, outcome)
            else:
                left[self._name(job)] = job
        for flow_run in self._runs.made():
            key = flow_run.parameters.get("requests")
            living = flow_run.state is not None and not flow_run.state.is_final()
            if living and isinstance(key, str):
                self._runs.take_up(flow_run)
                shard = load_shard(key)
                names = [one.run_id for one in shard.requests]
                jobs = deque(left.pop(name) for name in names if name in left)
                self.running[flow_run.id] = _UnderWay(jobs, shard.together)
                for job in jobs:
                    self.batch.begun(job.request)
        self.waiting.extend(sorted(left.values(), key=_alike))

    def _name(self, job: _Job) -> str:
        return run_id_of(self._runs.batch, job.request, job.attempt)

    def _left_by(self, job: _Job) -> tuple[BatchOutcome, datetime] | None:
        return outcome_left(job.request.number, job.request.where, self._name(job))

    def start_next(self) -> None:
        """Put some requests into a shard, and create its run."""
        count = self._sizes.next(len(self.waiting), self.batch.parallel)
        jobs = [self.waiting.popleft() for _ in range(count)]
        requests = tuple(
            Sharded(
                number=job.request.number,
                where=job.request.where,
                run_id=self._name(job),
                parameters=job.request.parameters,
            )
            for job in jobs
        )
        together = not any(job.alone for job in jobs)
        shard = Shard(
            flow=self._flow, retries=self.batch.retries, together=together, requests=requests
        )
        place, name = keep_shard(shard)
        first, last = requests[0].where, requests[-1].where
        where = first if count == 1 else f"{first} to {last}"
        run_id = self._runs.create(
            self._deployment,
            task=f"{self._flow}/{FLOW}",
            where=where,
            key=f"{FLOW}:{name}:{jobs[0].deaths}{'' if together else ':alone'}",
            name=BETWEEN.join((self._flow, f"{count} request{'s' * (count > 1)}", where)),
            parameters={"requests": place},
        )
        self.running[run_id] = _UnderWay(deque(jobs), together)
        for job in jobs:
            self.batch.begun(job.request)

    def collected(self) -> bool:
        """Whether a shard has ended; outcomes that requests have left by now are entered."""
        found = self._runs.read(list(self.running))
        ended = False
        for run_id, under_way in list(self.running.items()):
            self._enter(under_way.jobs)
            flow_run = found.get(run_id)
            if flow_run is None and time.monotonic() - under_way.started < NEW_SECONDS:
                continue
            if flow_run is not None and not (flow_run.state and flow_run.state.is_final()):
                continue
            ended = True
            del self.running[run_id]
            self._enter(under_way.jobs)  # what it left since
            self._conclude(under_way, flow_run)
        return ended

    def _enter(self, jobs: deque[_Job]) -> None:
        """Enter what the first requests of a shard have come to."""
        tried_again: list[_Job] = []
        while jobs and (left := self._left_by(jobs[0])) is not None:
            outcome, _ = left
            if self.batch.retries and may_pass(outcome):
                tried_again.append(jobs.popleft())
                continue
            self._sizes.took(outcome.seconds)
            self.batch.finished(jobs.popleft().request, outcome)
        jobs.extendleft(reversed(tried_again))

    def _conclude(self, under_way: _UnderWay, flow_run: FlowRun | None) -> None:
        """What a shard that is over has not done: told of, or put into further shards."""
        state = flow_run.state if flow_run is not None else None
        for place, job in enumerate(under_way.jobs):
            request, left = job.request, self._left_by(job)
            if left is not None:
                self.batch.finished(request, left[0])
            elif flow_run is None:
                self.batch.finished(request, not_run(request, deleted()))
            elif state is not None and state.is_cancelled():
                stopped = BatchOutcome(
                    number=request.number, where=request.where, state="cancelled"
                )
                self.batch.finished(request, stopped)
            elif state is not None and state.is_crashed() and under_way.together:
                self.waiting.append(replace(job, alone=True))
            elif place > 0 and state is not None and state.is_crashed():
                self.waiting.append(job)  # the process died at the one before
            elif job.deaths < self.batch.retries:
                self.waiting.append(replace(job, deaths=job.deaths + 1))
            else:
                self.batch.finished(request, crashed(request, state))


def are_worth_it(flow: str, requests: Sequence[Request]) -> bool:
    """Whether a batch that nobody told otherwise is cut into shards."""
    if len(requests) < FEWEST:
        return False
    known = Durations(flow)
    each = [known.expected(request.parameters) for request in requests]
    there = [seconds for seconds in each if seconds is not None]
    return not there or median(there) < LONG_SECONDS


def is_shard(flow_run: FlowRun) -> bool:
    """Whether a run of a batch works through a shard."""
    key = flow_run.parameters.get("requests")
    return isinstance(key, str) and key.startswith(SHARDS)


def find_shards(client: SyncPrefectClient, target: DeploymentResponse) -> DeploymentResponse:
    """The deployment whose runs work through shards, on the workers of a target.

    Raises:
        DependencyMissingError: the server has none, or it is in another work pool.
    """
    try:
        found = client.read_deployment_by_name(f"{FLOW}/{FLOW}")
    except ObjectNotFound as error:
        raise DependencyMissingError(
            f"the server has no deployment {FLOW}/{FLOW}", "run: safelight deploy"
        ) from error
    if found.work_pool_name != target.work_pool_name:
        raise DependencyMissingError(
            f"shards run in work pool {found.work_pool_name}, {target.name} in "
            f"{target.work_pool_name}",
            f"give deployment {FLOW}/{FLOW} the work pool of {target.name}, or set shards to false",
        )
    return found


def _alike(job: _Job) -> tuple[str, int]:
    shared = {name: job.request.parameters.get(name) for name in ALIKE}
    return json.dumps(shared, sort_keys=True), job.request.number
