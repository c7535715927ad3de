"""Many requests of a batch in one flow run."""

from typing import Annotated

from pydantic import Field

from flows.batching.laying_out import publish_table
from flows.batching.outcomes import may_pass, outcome_left, outcome_told
from flows.batching.requests import Request, find_target
from flows.batching.shards import KEY, Shard, Sharded, load_shard
from flows.running.recorded import RecordedFlow, recorded_flow, run_inline
from safelight.progress import pause, step, watching
from safelight.provenance.batches import BatchOutcome
from safelight.store.artifact import ArtifactRef
from tasks.base.recorder import recorder

AGAIN_SECONDS = 2.0
"""Before another try of a request."""


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
    """Run some requests of a batch one after the other, each with a record of its own."""
    given = load_shard(requests)
    outcomes = _worked_through(given)
    shown = [Request(one.number, one.where, one.parameters, "", 0) for one in given.requests]
    publish_table(shown, outcomes)
    states = [outcome.state for outcome in outcomes.values()]
    recorder().answer["requests"] = {state: states.count(state) for state in set(states)}
    return []


def _worked_through(given: Shard) -> dict[int, BatchOutcome]:
    target = find_target(given.flow)
    outcomes: dict[int, BatchOutcome] = {}
    with watching(recorder().stage_listener("requests")):
        for done, one in enumerate(given.requests):
            step(done, len(given.requests))
            before = outcome_left(one.number, one.where, one.run_id)
            if before is not None and before[0].state == "succeeded":  # it was interrupted
                outcomes[one.number] = before[0]
                continue
            outcome = _run(target, one)
            for _ in range(given.retries):
                if not may_pass(outcome):
                    break
                pause(AGAIN_SECONDS)
                outcome = _run(target, one)
            outcomes[one.number] = outcome
        step(len(given.requests), len(given.requests))
    return outcomes


def _run(target: RecordedFlow[...], one: Sharded) -> BatchOutcome:
    manifest = run_inline(target, dict(one.parameters), one.run_id, _nobody_looks)
    return outcome_told(one.number, one.where, manifest)


def _nobody_looks(stage: str, done: int, total: int) -> None:
    """The steps of one request; the shard counts requests."""
