"""What all stages share: caching by content, retries of transient errors, measurements."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any, Literal, ParamSpec, Self, TypeVar, cast

from prefect import Task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.states import Cancelled
from prefect.transactions import get_transaction
from pydantic import JsonValue

from safelight.engines.identity import EngineIdentity
from safelight.engines.measure import measured
from safelight.params import Params
from safelight.progress import StopRequestedError, moving, stop_requested, watching
from safelight.store.artifact import ArtifactRef, MediaKind
from safelight.store.results import RESULTS, SafelightResults
from tasks.ingest import ingest
from tasks.recorder import facts_of, recorder
from tasks.retrying import worth_retrying

P = ParamSpec("P")
R = TypeVar("R")
Gives = Literal["image", "video", "same"]
KEY_REVISION = 4
"""Raised when the meaning of a key changes, so that no older result is taken for a new one."""


class Stage(Task[P, R]):
    """A Prefect task on references that also says what a pipeline has to know about it."""

    def __init__(
        self,
        fn: Callable[P, R],
        params_type: type[Params],
        takes: tuple[MediaKind, ...],
        gives: Gives,
        identity: Callable[[Any], EngineIdentity],
    ) -> None:
        self.params_type = params_type
        """Its parameter model."""
        self.takes = takes
        """Media kinds its input may have; empty when it needs none."""
        self.gives: Gives = gives
        """Media kind of its result; `same` as its input."""
        self.identity = identity
        """From its parameters to the engine that will do the work, without loading it."""
        super().__init__(
            _measuring(fn),
            name=fn.__name__,
            retries=2,
            retry_delay_seconds=[2, 10],
            retry_condition_fn=worth_retrying,
            cache_policy=CacheKeyFnPolicy(cache_key_fn=self._key),
            persist_result=True,
            result_storage=RESULTS,
            result_serializer="json",  # never a pickle
        )

    @property
    def result_storage(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The block of our store; None where the run's own results go there, which is inherited.

        Prefect asks the server for a block by its name twice a task.
        """
        run = FlowRunContext.get()
        ours = run is not None and isinstance(run.result_store.result_storage, SafelightResults)
        return None if ours else RESULTS

    @result_storage.setter
    def result_storage(self, given: object) -> None:
        """Prefect's constructor sets it; it never changes."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Run the stage in the current flow and enter it in the run's record."""
        return self.named(self.name, *args, **kwargs)

    def __get__(self, instance: object, owner: type | None) -> Self:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Itself: stages are held by plans, they are never methods."""
        del instance, owner
        return self

    def named(self, entry: str, *args: P.args, **kwargs: P.kwargs) -> R:
        """As a plain call, entered in the run's record under a name of the caller's choice."""
        state = super().__call__(*args, return_state=True, **kwargs)
        return self.finished(state, entry, *args, **kwargs)

    def finished(self, state: State[Any], entry: str, *args: P.args, **kwargs: P.kwargs) -> R:
        """Enter a finished call in the run's record as `entry`, and give its result.

        Raises:
            StopRequestedError: the stage was asked to stop.
            PipelineError: the stage failed.
        """
        values = [*args, *kwargs.values()]
        params = _params_in(values)
        facts = facts_of(
            self.name, entry, state, params, self.identity(params), list(_references_in(values))
        )
        recorder().add(facts)
        if state.is_cancelled():
            raise StopRequestedError(state.message or f"{self.name} was asked to stop")
        return cast(R, state.result())

    def _key(self, context: TaskRunContext, arguments: Mapping[str, Any]) -> str:
        del context
        return cache_key(self, list(arguments.values()))


def stage(
    *,
    takes: tuple[MediaKind, ...],
    gives: Gives,
    identity: Callable[[Any], EngineIdentity],
) -> Callable[[Callable[P, R]], Stage[P, R]]:
    """Make a stage of a function that takes references, then its parameters as `params`.

    Args:
        takes: media kinds the first reference may have; empty when there is none.
        gives: media kind of the result.
        identity: engine, version, weights and device class for given parameters; part of the
            cache key, so it must not load the engine.
    """

    def decorate(fn: Callable[P, R]) -> Stage[P, R]:
        params_type = fn.__annotations__["params"]
        return Stage(fn, params_type, takes, gives, identity)

    return decorate


def cache_key(stage: Stage[..., Any], arguments: list[Any]) -> str:
    """sha256 over all that a result depends on: stage, engine, weights, parameters, inputs."""
    params = _params_in(arguments)
    described = {
        "revision": KEY_REVISION,
        "stage": stage.name,
        "params": params.model_dump(mode="json"),
        "inputs": [_input_key(value) for value in arguments if not isinstance(value, Params)],
        "engine": stage.identity(params).model_dump(mode="json"),
    }
    if locations := params.locations():  # files may be exchanged, so their names say nothing
        described["pictures"] = [ingest(place, ("image",)).sha256 for place in locations]
    canonical = json.dumps(described, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"{stage.name}-{hashlib.sha256(canonical.encode()).hexdigest()}"


def _input_key(value: object) -> object:
    if isinstance(value, ArtifactRef):
        return value.sha256
    if isinstance(value, list | tuple):
        return [_input_key(item) for item in cast("list[object]", value)]
    if value is None:
        return None
    raise TypeError(f"a stage takes references and parameters, not {type(value).__name__}")


def _params_in(values: list[Any]) -> Params:
    return next(value for value in values if isinstance(value, Params))


def _references_in(values: list[Any]) -> Iterator[ArtifactRef]:
    for value in values:
        if isinstance(value, ArtifactRef):
            yield value
        elif isinstance(value, list | tuple):
            yield from _references_in(list(cast("list[Any]", value)))


def _measuring(fn: Callable[P, R]) -> Callable[P, R]:
    @wraps(fn)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if stop_requested():  # its result may be there: a stopped run does not wait for the answer
            return cast(R, _stopped(f"stopped before {fn.__name__} began"))
        listener = recorder().stage_listener(fn.__name__)
        with watching(listener) as notes, moving(), measured() as cost:
            try:
                result = fn(*args, **kwargs)
            except StopRequestedError as stop:
                return cast(R, _stopped(str(stop)))
        facts: dict[str, JsonValue] = {
            "stage": fn.__name__,
            "seconds": round(cost.seconds, 3),
            "peak_bytes": cost.peak_bytes,
            "gpu_peak_bytes": cost.gpu_peak_bytes,
            "notes": [*notes],
        }
        if isinstance(result, ArtifactRef):
            return cast(R, result.described(**facts))
        return cast(R, [ref.described(**facts) for ref in cast("list[ArtifactRef]", result)])

    return run


def _stopped(message: str) -> State[None]:
    """The outcome of a stage that was stopped: a state, which Prefect takes as it is.

    Prefect would keep the state's data, nothing, under the stage's key and find it again.
    """
    transaction = get_transaction()
    if transaction is not None:
        transaction.write_on_commit = False
    return Cancelled(message=message)
