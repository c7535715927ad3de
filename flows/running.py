"""What all flows share: checked parameters, one explicit seed, a manifest whatever happens."""

import hashlib
import inspect
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache, wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast, get_args, get_type_hints
from uuid import uuid4

from prefect import Flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import AwaitingRetry, Cancelled
from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError, create_model

from flows.publishing import ProgressBoard, publish
from safelight.engines.device import device_class
from safelight.errors import PipelineError, UnknownError
from safelight.params import refusal
from safelight.progress import StopReason, StopRequestedError, stop_reason
from safelight.provenance.manifest import (
    Failure,
    Manifest,
    RunResult,
    StageEntry,
    device_description,
    keep_manifest,
    versions,
)
from safelight.store.artifact import ArtifactRef
from safelight.store.results import RESULTS
from safelight.store.store import current_store
from tasks.recorder import Recorder, StageFacts, recording

LOG = logging.getLogger(__name__)
P = ParamSpec("P")
Outcome = TypeVar("Outcome", ArtifactRef, list[ArtifactRef])


class RecordedFlow(Flow[P, RunResult]):
    """A flow that refuses bad parameters with our errors, before anything runs."""

    def validate_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Check all parameters against the signature.

        Raises:
            MissingRequiredFieldError: a parameter without a default was left out.
            ContractMismatchError: there is no parameter of that name.
            InvalidFieldValueError: a value is outside its limits.
        """
        model = parameters_model(self.fn)
        try:
            filled = model.model_validate(parameters)
        except ValidationError as error:
            raise refusal(error, self.name) from error
        return {name: getattr(filled, name) for name in model.model_fields}


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


@lru_cache(maxsize=256)
def parameters_model(fn: Callable[..., Any]) -> type[BaseModel]:
    """A pydantic model with one field for each parameter of a function; others are refused."""
    hints = get_type_hints(fn, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(fn).parameters.items()
    }
    config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False)
    return create_model(fn.__name__, __config__=config, **fields)


def _recorded(body: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(body)
    def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  (the flow's own parameters)
        called = dict(inspect.signature(body).bind(*args, **kwargs).arguments)
        context = FlowRunContext.get()
        flow_run = context.flow_run if context else None
        run_id = str(flow_run.id if flow_run else uuid4())
        if "seed" in called and called["seed"] is None:
            called["seed"] = _seed_of(run_id)
        ledger = _Ledger(body.__name__, run_id, called)
        with ledger:
            body(**called)
            current_store().settle()
        if ledger.stopped is not None:
            return _stopped_state(ledger.stopped)
        result = RunResult.of(ledger.manifest())
        return result.model_copy(update={"data": {**result.data, **ledger.answer}})

    run.__doc__ = _documented(body)
    return run


def _stopped_state(message: str) -> State[None]:
    if stop_reason() is StopReason.RESCHEDULE:
        return AwaitingRetry(message=f"{message}; goes on in another process")
    return Cancelled(message=message)


def _documented(body: Callable[..., Any]) -> str:
    """The docstring with an Args section: the form's help texts, from the field descriptions.

    The form shows nothing of a number's limits by itself, so they stand in the text.
    """
    hints = get_type_hints(body, include_extras=True)
    lines = [inspect.cleandoc(body.__doc__ or body.__name__).partition("\n\n")[0], "", "Args:"]
    for name in inspect.signature(body).parameters:
        described = (getattr(extra, "description", None) for extra in get_args(hints[name])[1:])
        text = next((text for text in described if text), name)
        said = f"{text} {_limits(TypeAdapter(hints[name]).json_schema())}"
        lines.append(f"    {name}: {' '.join(said.split())}")
    return "\n".join(lines)


def _limits(schema: dict[str, Any]) -> str:
    """A sentence with the limits of a number, or of the number among alternatives."""
    kinds = [schema, *schema.get("anyOf", ())]
    number = next((kind for kind in kinds if kind.get("type") in ("integer", "number")), {})
    low, high = number.get("minimum"), number.get("maximum")
    parts: list[str] = []
    if low is not None and high is not None:
        parts.append(f"{low:.15g} to {high:.15g}")
    elif low is not None:
        parts.append(f"at least {low:.15g}")
    elif high is not None:
        parts.append(f"at most {high:.15g}")
    if "multipleOf" in number:
        parts.append(f"a multiple of {number['multipleOf']:.15g}")
    sentence = ", ".join(parts)
    return f"{sentence[:1].upper()}{sentence[1:]}." if sentence else ""


def _seed_of(run_id: str) -> int:
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:4], "big")


class _Ledger:
    """Keeps the run's record while its body runs and writes the manifest however it ends."""

    def __init__(self, flow: str, run_id: str, called: dict[str, Any]) -> None:
        self.flow = flow
        self.run_id = run_id
        self.called = called
        self.stopped: str | None = None
        """Why the run stopped early; None when it was not asked to."""
        self._started = datetime.now(UTC)
        self._board = ProgressBoard()
        self._recording = recording(self._board.report)
        self._recorder = Recorder()
        self._failure: Failure | None = None

    def __enter__(self) -> None:
        self._recorder = self._recording.__enter__()
        self._board.recorder = self._recorder

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._recording.__exit__(None, None, None)
        if isinstance(error, StopRequestedError):
            self.stopped = str(error)
        if error is not None:
            known = error if isinstance(error, PipelineError) else _unknown(error)
            self._failure = Failure(code=known.code, problem=known.problem, remedy=known.remedy)
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
        publish(manifest)
        self._board.finish()
        current_store().settle()

    @property
    def answer(self) -> dict[str, JsonValue]:
        """What the body added to the result."""
        return self._recorder.answer

    def manifest(self) -> Manifest:
        """Everything that is known about the run by now."""
        return Manifest(
            flow=self.flow,
            flow_run_id=self.run_id,
            parameters=cast(
                "dict[str, JsonValue]",
                TypeAdapter(dict[str, Any]).dump_python(self.called, mode="json"),
            ),
            inputs=self._recorder.inputs,
            stages=tuple(_entry(facts) for facts in self._recorder.facts),
            versions=versions(),
            device_class=device_class(),
            device_name=device_description(device_class()),
            started=self._started.isoformat(),
            ended=datetime.now(UTC).isoformat(),
            success=self._failure is None,
            error=self._failure,
        )


def _unknown(error: BaseException) -> PipelineError:
    return UnknownError(f"{type(error).__name__}: {error}", "report this with the flow run's log")


def _entry(facts: StageFacts) -> StageEntry:
    first = facts.results[0].metadata if facts.results else {}
    return StageEntry(
        name=facts.name,
        stage_type=facts.stage_type,
        status=facts.status,
        parameters=facts.parameters,
        sources=tuple(ref.sha256 for ref in facts.sources),
        results=facts.results,
        engine=facts.identity,
        seconds=cast(float, first.get("seconds", 0.0)),
        peak_bytes=cast(int, first.get("peak_bytes", 0)),
        gpu_peak_bytes=cast(int, first.get("gpu_peak_bytes", 0)),
        notes=tuple(str(note) for note in cast("list[JsonValue]", first.get("notes", []))),
        error=None if facts.error is None else Failure.of(facts.error),
    )
