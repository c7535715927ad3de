"""What became of a request of a batch, told from its run's state and manifest."""

from datetime import datetime
from typing import Any

from prefect.client.schemas.objects import FlowRun, State

from flows.batching.requests import Request
from safelight.engines.remote.spending import has_sent, spent_by
from safelight.errors import PipelineError, UnknownError
from safelight.provenance.batches import BatchOutcome
from safelight.provenance.endings import failure_in
from safelight.provenance.manifest import MANIFESTS, Failure, Manifest, load_manifest
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store, key_of


def outcome_of(request: Request, flow_run: FlowRun) -> BatchOutcome:
    """Of a request whose run the server knows."""
    state = flow_run.state
    seconds = round(flow_run.total_run_time.total_seconds(), 2)
    return outcome_in(request, state, str(flow_run.id), seconds)


def outcome_in(
    request: Request, state: State[Any] | None, run_id: str, seconds: float
) -> BatchOutcome:
    """What a final state says, and what the run left in the store."""
    ended: dict[str, Any] = {
        "number": request.number,
        "where": request.where,
        "flow_run_id": run_id,
        "seconds": seconds,
    }
    if state is not None and state.is_cancelled():
        return BatchOutcome(state="cancelled", **ended)
    if state is None or not state.is_completed():
        how = "crashed" if state is not None and state.is_crashed() else "failed"
        spent = spent_by(run_id)
        return BatchOutcome(state=how, error=_failure(state), cost_usd=spent, **ended)
    try:
        manifest = load_manifest(f"{MANIFESTS}{run_id}.json")
        results = _last_results(manifest)
    except PipelineError as error:  # its results were deleted
        return BatchOutcome(state="failed", error=Failure.of(error), **ended)
    return BatchOutcome(
        state="succeeded",
        results=results,
        unfolded=manifest.unfolded,
        cost_usd=manifest.cost_usd,
        **ended,
    )


def crashed(request: Request, state: State[Any] | None) -> BatchOutcome:
    """Of a request whose process died at it, or whose shard came to nothing."""
    return BatchOutcome(
        number=request.number, where=request.where, state="crashed", error=_failure(state)
    )


def outcome_left(number: int, where: str, run_id: str) -> tuple[BatchOutcome, datetime] | None:
    """Of a request that ran in a shard, told from the manifest that it left, and when it ended.

    Args:
        number: of the request.
        where: how an error names it.
        run_id: of its manifest.

    Returns:
        None where it left no manifest, or the files of its results are gone.
    """
    try:
        manifest = load_manifest(f"{MANIFESTS}{run_id}.json")
        _last_results(manifest)
    except PipelineError:
        return None
    return outcome_told(number, where, manifest), datetime.fromisoformat(manifest.ended)


def is_there(outcome: BatchOutcome) -> bool:
    """Whether the store has what it made."""
    return all(current_store().holds(key_of(ref), ref.bytes) for ref in outcome.results)


def outcome_told(number: int, where: str, manifest: Manifest) -> BatchOutcome:
    """Of a request that ran in a shard, told from its manifest.

    Args:
        number: of the request.
        where: how an error names it.
        manifest: of its run.
    """
    began, ended = (datetime.fromisoformat(at) for at in (manifest.started, manifest.ended))
    return BatchOutcome(
        number=number,
        where=where,
        state="succeeded" if manifest.success else "failed",
        flow_run_id=manifest.flow_run_id,
        seconds=round((ended - began).total_seconds() - manifest.waited_seconds, 2),
        results=manifest.shown if manifest.success else (),
        unfolded=manifest.unfolded,
        cost_usd=manifest.cost_usd,
        error=manifest.error,
    )


def _last_results(manifest: Manifest) -> tuple[ArtifactRef, ...]:
    results = manifest.shown
    for ref in results:
        if not current_store().holds(key_of(ref), ref.bytes):
            current_store().fetch(ref)  # says what is wrong with it
    return results


def _failure(state: State[Any] | None) -> Failure:
    message = (state.message or state.name or "") if state else "it has no state"
    return failure_in(message, "read its log, then run the batch again")


def deleted() -> UnknownError:
    """Why a run that somebody deleted has no result."""
    return UnknownError("its run was deleted", "run the batch again")


def not_run(request: Request, error: PipelineError, run_id: str = "") -> BatchOutcome:
    """Of a request without a run that says more: refused before, or gone."""
    return BatchOutcome(
        number=request.number,
        where=request.where,
        state="failed",
        flow_run_id=run_id,
        error=Failure.of(error),
    )


def may_pass(outcome: BatchOutcome) -> bool:
    """Whether another try may succeed, and costs nobody money a second time.

    A run that has sent work to a provider goes on with it when it is taken up again. A new one
    would send it anew.
    """
    code = outcome.error.code if outcome.error else ""
    passes = outcome.state == "crashed" or (outcome.state == "failed" and code in _passing())
    return passes and not (outcome.flow_run_id and has_sent(outcome.flow_run_id))


def _passing(root: type[PipelineError] = PipelineError) -> frozenset[str]:
    """Codes of errors that the same call may not meet a moment later."""
    below = frozenset[str]().union(*(_passing(kind) for kind in root.__subclasses__()))
    return below | {root.code} if root.transient else below
