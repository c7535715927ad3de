"""Many requests of a batch in one flow run."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby, islice
from typing import Annotated

from pydantic import Field

from flows.batching.kinds import WORDS_AND_SEED
from flows.batching.outcomes import may_pass, outcome_left, outcome_told
from flows.batching.requests import Request, find_target
from flows.batching.shards import KEY, Shard, Sharded, load_shard
from flows.batching.tabling import publish_tables
from flows.running.checking import RecordedFlow
from flows.running.inputs import media_parameters
from flows.running.recorded import recorded_flow, run_inline
from safelight.engines.machine.company import keep_company
from safelight.progress import pause, step, watching
from safelight.provenance.batches import BatchOutcome
from safelight.store.artifact import ArtifactRef
from tasks.base.recorder import recorder

AGAIN_SECONDS = 2.0
"""Before another try of a request."""
TOGETHER = 64
"""Requests that are under way at once, in turns, so that engines can make alike things together."""
WITH_PICTURES = 16
"""The same where each may hold pictures that it was given."""


@recorded_flow
def shard(
    requests: Annotated[
        str,
        Field(
            pattern=KEY,
            description="Where the store has the requests; a batch puts it there.",
        ),
    ],
) -> list[ArtifactRef]:
    """Run some requests of a batch, each with a record of its own; alike pictures together."""
    given = load_shard(requests)
    outcomes = worked_through(given)
    shown = [Request(one.number, one.where, one.parameters, "", 0) for one in given.requests]
    publish_tables(shown, outcomes)
    states = [outcome.state for outcome in outcomes.values()]
    recorder().answer["requests"] = {state: states.count(state) for state in set(states)}
    return []


def worked_through(given: Shard) -> dict[int, BatchOutcome]:
    """Run its requests, those that were not before; what has become of each, by number."""
    target = find_target(given.flow)
    outcomes: dict[int, BatchOutcome] = {}
    with watching(recorder().stage_listener("requests")):

        def enter(outcome: BatchOutcome) -> None:
            outcomes[outcome.number] = outcome
            step(len(outcomes), len(given.requests))

        step(0, len(given.requests))
        left: list[Sharded] = []
        for one in given.requests:
            before = outcome_left(one.number, one.where, one.run_id)
            if before is not None and before[0].state == "succeeded":  # it was interrupted
                enter(before[0])
            else:
                left.append(one)
        for some in _alike(target, left) if given.together else ([one] for one in left):
            for one in _tried_together(target, some, given.retries > 0, enter):
                enter(_tried_again(target, one, given.retries))
    return outcomes


def _alike(target: RecordedFlow[...], requests: Sequence[Sharded]) -> Iterator[list[Sharded]]:
    """Those that stand together and may be drawn together."""
    media = media_parameters(target.fn).keys()

    def shared(one: Sharded) -> str:
        rest = one.parameters.keys() - WORDS_AND_SEED - media
        return json.dumps({name: one.parameters[name] for name in rest}, sort_keys=True)

    most = WITH_PICTURES if media else TOGETHER
    for _, group in groupby(requests, shared):
        while some := list(islice(group, most)):
            yield some


def _tried_together(
    target: RecordedFlow[...],
    some: Sequence[Sharded],
    again: bool,
    enter: Callable[[BatchOutcome], object],
) -> list[Sharded]:
    """Enter the outcome of each; those that another try may help are given back instead."""
    passing: list[Sharded] = []

    def ended(place: int, outcome: BatchOutcome) -> None:
        if again and may_pass(outcome):
            passing.append(some[place])
        else:
            enter(outcome)

    if len(some) == 1:
        ended(0, _run(target, some[0]))
    else:
        keep_company([partial(_run, target, one) for one in some], ended)
    return passing


def _tried_again(target: RecordedFlow[...], one: Sharded, retries: int) -> BatchOutcome:
    while True:
        pause(AGAIN_SECONDS)
        outcome, retries = _run(target, one), retries - 1
        if retries < 1 or not may_pass(outcome):
            return outcome


def _run(target: RecordedFlow[...], one: Sharded) -> BatchOutcome:
    manifest = run_inline(target, dict(one.parameters), one.run_id, _nobody_looks)
    return outcome_told(one.number, one.where, manifest)


def _nobody_looks(stage: str, done: int, total: int) -> None:
    """The steps of one request; the shard counts requests."""
