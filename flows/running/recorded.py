"""What all flows share: checked parameters, one explicit seed, a manifest whatever happens."""

import inspect
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast
from uuid import uuid4

from greenlet import GreenletExit
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.exceptions import Abort, TerminationSignal
from prefect.logging import get_run_logger
from prefect.states import AwaitingRetry, Cancelled, Failed
from pydantic import (
    JsonValue,
    TypeAdapter,
)

from flows.running.asking import asked
from flows.running.checking import RecordedFlow, refused_parameters
from flows.running.consenting import recorded_consent
from flows.running.entries import stage_entries
from flows.running.naming import name_run
from flows.running.progress import ProgressBoard
from flows.running.prompts import unfolded
from flows.running.seeds import with_seed
from flows.running.signature import documented
from safelight.client.page import publish
from safelight.engines.machine.device import device_class
from safelight.engines.machine.measure import absent_seconds
from safelight.errors import PipelineError, UnknownError
from safelight.naming import run_name
from safelight.progress import StopReason, StopRequestedError, is_given_up, stop_reason
from safelight.prompts.unfolded import Unfolded
from safelight.provenance.endings import UNDER_WAY, never_begun
from safelight.provenance.manifest import (
    Failure,
    Manifest,
    RunResult,
    keep_manifest,
)
from safelight.provenance.surroundings import device_description, versions
from safelight.reports import as_known
from safelight.restarts import ELSEWHERE
from safelight.run_logs import say_it_once
from safelight.store.artifact import ArtifactRef
from safelight.store.results import RESULTS
from safelight.store.store import current_store
from tasks.base.inline import inline
from tasks.base.recorder import Recorder, Report, recorder, recording

LOG = logging.getLogger(__name__)
P = ParamSpec("P")
Outcome = TypeVar("Outcome", ArtifactRef, list[ArtifactRef])
KEPT_PART = 8
"""A run under way keeps its manifest when it has this part more stages than when it did so last."""
say_it_once()


def recorded_flow(body: Callable[P, Any]) -> RecordedFlow[P]:
    """Make a flow of a function that calls stages and returns what the last of them made.

    The run's seed is drawn from the id of the flow run when the caller gave none, so that a
    retry of the same run draws the same pictures and finds its finished stages in the cache.
    """
    return RecordedFlow(
        cast("Callable[P, RunResult]", _recorded(body)),
        name=body.__name__,
        description=inspect.getdoc(body),
        persist_result=True,
        result_storage=RESULTS,
        result_serializer="json",  # never a pickle
    )


def _recorded(body: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(body)
    def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  (the flow's own parameters)
        context = FlowRunContext.get()
        flow_run = context.flow_run if context else None
        refused = refused_parameters()
        if refused is not None:
            error, parameters = refused
            if flow_run is not None:
                _leave_refusal(body.__name__, flow_run, parameters, error)
            return _failed(error, flow_run, run_name(body.__name__, parameters))
        run_id = str(flow_run.id if flow_run else uuid4())
        called = with_seed(inspect.signature(body).bind(*args, **kwargs).arguments, run_id)
        try:
            given, prompts = unfolded(called)
        except PipelineError as error:
            if flow_run is not None:
                _leave_refusal(body.__name__, flow_run, called, error)
            return _failed(error, flow_run, run_name(body.__name__, called))
        ledger = _Ledger(body.__name__, run_id, called, prompts, flow_run)
        name = run_name(body.__name__, given)
        if flow_run is not None:
            ledger.board.beside(name_run, flow_run, name, None, given)
        try:
            with ledger:
                ledger.results = _looked_at(body(**given))
                current_store().settle()
        except TerminationSignal:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001  (each failure gets a code)
            return _failed(ledger.error or as_known(error), flow_run, name)
        if ledger.stopped is not None:
            return _stopped_state(ledger.stopped)
        result = RunResult.of(ledger.manifest())
        return result.model_copy(update={"data": {**result.data, **ledger.answer}})

    run.__doc__ = documented(body)
    return run


def run_inline(
    target: RecordedFlow[...], parameters: dict[str, Any], run_id: str, report: Report
) -> Manifest:
    """Run a flow's body inside another run: its own record and manifest, and no flow run.

    Args:
        target: the flow.
        parameters: as it takes them.
        run_id: names its manifest; a seed that was left out is drawn from it.
        report: called with stage, done and total at each step.

    Returns:
        Its manifest, also when it failed or is refused; kept, though it may be on its way yet.

    Raises:
        StopRequestedError: the run around it was asked to stop.
        PipelineError: the manifest of a run that is refused cannot be kept.
    """
    try:
        called = with_seed(target.checked(parameters), run_id)
        given, prompts = unfolded(called)
    except PipelineError as refused:
        manifest = never_begun(target.name, run_id, _plain(parameters), Failure.of(refused))
        keep_manifest(current_store(), manifest)
        return manifest
    ledger = _Ledger(target.name, run_id, called, prompts, report=report)
    try:
        with inline(), ledger:
            ledger.results = _looked_at(inspect.unwrap(target.fn)(**given))
    except TerminationSignal:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  (each failure gets a code)
        if ledger.error is None:  # nothing failed but keeping the manifest
            lost = {"success": False, "results": (), "error": Failure.of(as_known(error))}
            return ledger.manifest().model_copy(update=lost)
    if ledger.stopped is not None:
        raise StopRequestedError(ledger.stopped)
    return ledger.manifest()


def _failed(error: PipelineError, flow_run: FlowRun | None, name: str) -> State[Any]:
    """The final state: its message is the error's own, its data the error.

    Raises:
        PipelineError: the body was called without a run.
    """
    if flow_run is None:
        raise error
    get_run_logger().error("%s", error)
    name_run(flow_run, name, error)
    return Failed(message=str(error), data=error)


def _leave_refusal(
    flow: str, flow_run: FlowRun, parameters: dict[str, Any], error: PipelineError
) -> None:
    """The manifest and page of a run that is refused before its body begins."""
    called = _plain(parameters)
    manifest = never_begun(flow, str(flow_run.id), called, Failure.of(error))
    store = current_store()
    try:
        keep_manifest(store, manifest)
        store.settle()
    except PipelineError as lost:
        LOG.warning("the manifest was not kept: %s", lost)  # why it is refused counts
    publish(manifest, flow_run.id)


def _plain(parameters: dict[str, Any]) -> dict[str, JsonValue]:
    """Parameters as JSON has them; what it cannot say, as text."""
    plain = TypeAdapter(dict[str, Any]).dump_python(parameters, mode="json", fallback=str)
    return cast("dict[str, JsonValue]", plain)


def _stopped_state(message: str) -> State[None]:
    if stop_reason() is StopReason.RESCHEDULE:
        return AwaitingRetry(message=message + ELSEWHERE)
    return Cancelled(message=message)


def _stopped(message: str) -> UnknownError:
    return UnknownError(message, "run it again: finished stages come from the store")


def _listed(made: object) -> tuple[ArtifactRef, ...]:
    """The references that a body gives: one, several, or none."""
    several = cast("Sequence[object]", made) if isinstance(made, list | tuple) else (made,)
    return tuple(ref for ref in several if isinstance(ref, ArtifactRef))


def _looked_at(made: object) -> tuple[ArtifactRef, ...]:
    """The same, after the run's gate has passed them."""
    results = _listed(made)
    look = recorder().look
    if look is not None:
        look(results)
    return results


class _Ledger:
    """Keeps the run's record while its body runs and writes the manifest however it ends."""

    def __init__(
        self,
        flow: str,
        run_id: str,
        called: dict[str, Any],
        prompts: tuple[Unfolded, ...],
        flow_run: FlowRun | None = None,
        report: Report | None = None,
    ) -> None:
        self.flow = flow
        self.run_id = run_id
        self.called = called
        self._prompts = prompts
        self.stopped: str | None = None
        """Why the run stopped early; None when it was not asked to."""
        self._started = datetime.now(UTC)
        self._absent_before = absent_seconds()
        self.error: PipelineError | None = None
        """Why the run failed."""
        self.results: tuple[ArtifactRef, ...] = ()
        """What the body gave."""
        self.board = ProgressBoard.of(flow_run)
        self._has_page = report is None
        self._flow_run = flow_run
        self._kept_stages = 0
        self._recording = recording(report or self.board.report)
        self._recorder = Recorder()
        self._failure: Failure | None = None

    def __enter__(self) -> None:
        self._recorder = self._recording.__enter__()
        self._recorder.unfolded.extend(self._prompts)
        self._recorder.run_id = self.run_id
        self.board.recorder = self._recorder
        if self._flow_run is not None:
            self._recorder.begun = self.board.begun
            self._recorder.added = self._keep_so_far
            self._recorder.view = self.board.view

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._recording.__exit__(None, None, None)
        if isinstance(error, GreenletExit):  # whoever takes up the run around it runs it again
            return False
        if is_given_up():  # whoever has the run now tells what became of it
            raise Abort("the run is over or another worker has it")
        if isinstance(error, StopRequestedError):
            self.stopped = str(error)
        if error is not None:
            self.error = as_known(error) if self.stopped is None else _stopped(self.stopped)
            self._failure = Failure.of(self.error)
        try:
            self._publish(self.manifest())
        except StopRequestedError as stop:  # while the store did not answer
            self.stopped = self.stopped or str(stop)
        except PipelineError as lost:
            if error is None:
                raise
            LOG.warning("the manifest was not kept: %s", lost)  # why it failed counts
        return self.stopped is not None

    def _publish(self, manifest: Manifest) -> None:
        keep_manifest(current_store(), manifest)
        if not self._has_page:
            return  # nor anything to wait for: the run around it does
        goes_on = self.stopped is not None and stop_reason() is StopReason.RESCHEDULE
        if self._flow_run is not None and not goes_on:  # whoever goes on leaves its page
            publish(manifest, self._flow_run.id)
        self.board.finish()
        current_store().settle()

    def _keep_so_far(self, stages: int) -> None:
        """Keep what a worker completes if this process dies; the more stages, the less often."""
        self.board.ended()
        enough = stages - self._kept_stages >= max(1, stages // KEPT_PART)
        if not enough or stages == self._recorder.expected_stages or is_given_up():
            return
        self._kept_stages = stages
        so_far = self.manifest().model_copy(update={"success": False, "error": UNDER_WAY})
        try:
            current_store().write_record(so_far.key, so_far.model_dump_json(indent=2).encode())
        except PipelineError as lost:
            LOG.warning("the manifest of a run under way was not kept: %s", lost)

    @property
    def answer(self) -> dict[str, JsonValue]:
        """What the body added to the result."""
        return self._recorder.answer

    def manifest(self) -> Manifest:
        """Everything that is known about the run by now."""
        return Manifest(
            flow=self.flow,
            flow_run_id=self.run_id,
            parameters=_plain(self.called),
            unfolded=tuple(self._recorder.unfolded),
            inputs=self._recorder.inputs,
            consent=recorded_consent(self._recorder, self._started),
            stages=(*self._recorder.part_stages, *stage_entries(self._recorder.facts)),
            results=self.results if self._failure is None else (),
            **asked(self.run_id),
            versions=versions(),
            device_class=device_class(),
            device_name=device_description(device_class()),
            started=self._started.isoformat(),
            ended=datetime.now(UTC).isoformat(),
            waited_seconds=round(absent_seconds() - self._absent_before, 3),
            success=self._failure is None,
            error=self._failure,
        )
