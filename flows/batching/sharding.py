"""Runs the requests of a batch in shards, each a flow run that works through many of them."""

import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import NamedTuple
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound

from flows.batching.catalogue import Entry, catalogued, told
from flows.batching.durations import Durations
from flows.batching.earlier import Earlier
from flows.batching.outcomes import (
    crashed,
    deleted,
    is_there,
    may_pass,
    not_run,
    outcome_left,
)
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


class _Waiting(NamedTuple):
    """A request that no shard has yet; there may be very many."""

    number: int
    attempt: int
    deaths: int = 0
    alone: bool = False


@dataclass(frozen=True)
class _Job:
    request: Request
    attempt: int
    """Over all runs of the batch; part of the id of the request's manifest."""
    deaths: int = 0
    """Shards whose process died at it, in this run of the batch."""
    alone: bool = False
    """A process died while it and others were under way: one at a time tells of which."""

    def waits(self) -> _Waiting:
        """The same in few bytes."""
        return _Waiting(self.request.number, self.attempt, self.deaths, self.alone)


@dataclass
class _UnderWay:
    jobs: deque[_Job]
    """Those without an outcome yet, in the order in which they run."""
    together: bool
    """Whether several of them may be under way at once."""
    name: str
    """Of the shard."""
    ended: list[Entry] = field(default_factory=list[Entry])
    """What those that have an outcome came to."""
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
        self._earlier = Earlier(runs.batch)
        self.waiting: deque[_Waiting] = deque()
        self.running: dict[UUID, _UnderWay] = {}
        known = Durations(flow)
        each = [known.of_kind(kind) for kind, _ in batch.requests.kinds()]
        self._sizes = Sizes(max((one for one in each if one is not None), default=None))

    def run(self) -> None:
        """Run everything that is not finished.

        Raises:
            StopRequestedError: the batch was asked to stop; its shards are asked as well.
        """
        self._find_earlier()
        self._runs.follow(self)

    def _find_earlier(self) -> None:
        requests = self.batch.requests
        living = self._living()
        requests.enter_earlier(self._earlier.entries())
        for key in self._earlier.unlisted():
            if key not in living:  # it ended while nobody looked
                entries = self._earlier.left_by(key)
                self._earlier.keep(PurePosixPath(key).stem, entries)
                requests.enter_earlier(entries)
        self.batch.reinstate(self._standing(self._runs.asked_for()))
        left = dict(requests.left())
        for key, flow_run in living.items():
            self._runs.take_up(flow_run)
            self._take_up(flow_run.id, key, left)
        self.waiting.extend(_Waiting(number, attempt) for number, attempt in left.items())

    def _living(self) -> dict[str, FlowRun]:
        """Shards under way, by where the store has them."""
        found = ((run.parameters.get("requests"), run) for run in self._runs.living())
        return {key: run for key, run in found if isinstance(key, str)}

    def _standing(self, asked_for: datetime | None) -> Iterator[tuple[int, str]]:
        """Outcomes that count: what succeeded, and what failed since the batch was asked for."""
        for number, name, ended, text in self.batch.requests.earlier():
            ours = asked_for is not None and datetime.fromisoformat(ended) >= asked_for
            plain = json.loads(text)
            if plain["state"] == "succeeded":
                if not ours and not is_there(BatchOutcome.model_validate(plain)):
                    continue
            elif not ours or may_pass(BatchOutcome.model_validate(plain)):
                continue
            changed = {"number": number, "where": name, "reused": not ours}
            yield number, json.dumps(plain | changed)

    def _take_up(self, run_id: UUID, key: str, left: dict[int, int]) -> None:
        """Wait for a shard that is under way; what it has is no longer left."""
        shard = load_shard(key)
        numbers = self.batch.requests.named([one.identity for one in shard.requests])
        taken: dict[int, int] = {}
        for one in shard.requests:
            number = numbers.get(one.identity)
            if number is not None and left.get(number) == one.attempt:
                taken[number] = left.pop(number)
        found = self.batch.requests.numbered([*taken])
        jobs = deque(_Job(request, taken[request.number]) for request in found)
        self._set_out(run_id, _UnderWay(jobs, shard.together, PurePosixPath(key).stem))

    def _set_out(self, run_id: UUID, under_way: _UnderWay) -> None:
        self.running[run_id] = under_way
        for job in under_way.jobs:
            self.batch.begun(job.request)

    def _name(self, job: _Job) -> str:
        return run_id_of(self._runs.batch, job.request, job.attempt)

    def _left_by(self, job: _Job) -> tuple[BatchOutcome, datetime] | None:
        return outcome_left(job.request.number, job.request.where, self._name(job))

    def start_next(self) -> None:
        """Put some requests into a shard, and create its run."""
        count = self._sizes.next(len(self.waiting), self.batch.parallel)
        some = [self.waiting.popleft() for _ in range(count)]
        found = self.batch.requests.numbered([each.number for each in some])
        jobs = [
            _Job(request, each.attempt, each.deaths, each.alone)
            for request, each in zip(found, some, strict=True)
        ]
        requests = tuple(
            Sharded(
                number=job.request.number,
                where=job.request.where,
                run_id=self._name(job),
                identity=job.request.identity,
                attempt=job.attempt,
                parameters=job.request.parameters,
            )
            for job in jobs
        )
        together = not any(job.alone for job in jobs)
        shard = Shard(
            flow=self._flow, retries=self.batch.retries, together=together, requests=requests
        )
        place, name = keep_shard(shard, self._runs.batch)
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
        self._set_out(run_id, _UnderWay(deque(jobs), together, name))

    def collected(self) -> bool:
        """Whether a shard has ended; outcomes that requests have left by now are entered."""
        found = self._runs.read(list(self.running))
        ended = False
        for run_id, under_way in list(self.running.items()):
            self._enter(under_way)
            flow_run = found.get(run_id)
            if flow_run is None and time.monotonic() - under_way.started < NEW_SECONDS:
                continue
            if flow_run is not None and not (flow_run.state and flow_run.state.is_final()):
                continue
            ended = True
            del self.running[run_id]
            self._enter(under_way)  # what it left since
            self._conclude(under_way, flow_run)
            self._earlier.keep(under_way.name, under_way.ended)
        return ended

    def _enter(self, under_way: _UnderWay) -> None:
        """Enter what the first requests of a shard have come to."""
        jobs = under_way.jobs
        tried_again: list[_Job] = []
        while jobs and (left := self._left_by(jobs[0])) is not None:
            outcome, ended = left
            if self.batch.retries and may_pass(outcome):
                tried_again.append(jobs.popleft())
                continue
            self._sizes.took(outcome.seconds)
            self._finish(under_way, jobs.popleft(), outcome, ended)
        jobs.extendleft(reversed(tried_again))

    def _finish(
        self, under_way: _UnderWay, job: _Job, outcome: BatchOutcome, ended: datetime
    ) -> None:
        entry = (job.request.identity, job.attempt, ended.isoformat(), told(outcome))
        under_way.ended.append(entry)
        self.batch.finished(job.request, outcome)

    def _conclude(self, under_way: _UnderWay, flow_run: FlowRun | None) -> None:
        """What a shard that is over has not done: told of, or put into further shards."""
        state = flow_run.state if flow_run is not None else None
        for place, job in enumerate(under_way.jobs):
            request, left = job.request, self._left_by(job)
            if left is not None:
                self._finish(under_way, job, *left)
            elif flow_run is None:
                self.batch.finished(request, not_run(request, deleted()))
            elif state is not None and state.is_cancelled():
                stopped = BatchOutcome(
                    number=request.number, where=request.where, state="cancelled"
                )
                self.batch.finished(request, stopped)
            elif state is not None and state.is_crashed() and under_way.together:
                self.waiting.append(replace(job, alone=True).waits())
            elif place > 0 and state is not None and state.is_crashed():
                self.waiting.append(job.waits())  # the process died at the one before
            elif job.deaths < self.batch.retries:
                self.waiting.append(replace(job, deaths=job.deaths + 1).waits())
            else:
                self.batch.finished(request, crashed(request, state))


def are_worth_it(flow: str, requests: Sequence[Request]) -> bool:
    """Whether a batch that nobody told otherwise is cut into shards."""
    if len(requests) < FEWEST:
        return False
    known = Durations(flow)
    each = [(known.of_kind(kind), count) for kind, count in catalogued(requests).kinds()]
    there = sorted((seconds, count) for seconds, count in each if seconds is not None)
    half = sum(count for _, count in there) / 2
    below = sum(count for seconds, count in there if seconds < LONG_SECONDS)
    return not there or below > half


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
