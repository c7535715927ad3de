"""What the run's record keeps of one finished call of a stage."""

from typing import Any

from prefect.client.schemas.objects import State

from safelight.engines.identity import EngineIdentity
from safelight.errors import PipelineError
from safelight.progress import StopRequestedError
from safelight.store.artifact import ArtifactRef
from tasks.base.calling import Call
from tasks.base.recorder import StageFacts, Status

NOBODY = EngineIdentity(engine_id="none", version="")
"""Where no engine could be chosen."""


def facts_of(entry: str, state: State[Any], call: Call) -> StageFacts:
    """Read a finished task's state.

    Args:
        entry: what the pipeline calls the stage.
        state: how it ended.
        call: what it was given, and who served.
    """
    status: Status = "cached" if state.name == "Cached" else "done"
    results: tuple[ArtifactRef, ...] = ()
    error: PipelineError | None = None
    if state.is_cancelled():
        status = "cancelled"
    else:
        outcome = state.result(raise_on_failure=False)
        if isinstance(outcome, BaseException):
            status = "cancelled" if isinstance(outcome, StopRequestedError) else "failed"
            error = outcome if isinstance(outcome, PipelineError) else None
        else:
            results = tuple(outcome) if isinstance(outcome, list) else (outcome,)
    return StageFacts(
        stage_type=call.declared.name,
        name=entry,
        status=status,
        parameters=call.params.model_dump(mode="json"),
        identity=_identity(call),
        origin=call.declared.origin,
        passed_over=call.passed_over,
        sources=tuple(call.references),
        results=results,
        error=error,
        charges=tuple(call.charges.values()),
    )


def _identity(call: Call) -> EngineIdentity:
    try:
        return call.identity
    except PipelineError:  # the stage has said it
        return NOBODY
