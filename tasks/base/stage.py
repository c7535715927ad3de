"""What all stages share: caching by content, retries of transient errors, measurements."""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Literal, ParamSpec, Self, TypeVar, cast, get_origin
from uuid import uuid4

from prefect import Task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.futures import PrefectFuture
from prefect.settings import get_current_settings
from prefect.states import Cancelled
from prefect.transactions import get_transaction
from pydantic import JsonValue

from safelight.engines.identity import EngineIdentity
from safelight.engines.machine.company import wait_for_engines
from safelight.engines.machine.measure import measured
from safelight.engines.work import Work, payer, working
from safelight.errors import PipelineError
from safelight.params import Params
from safelight.progress import (
    StopRequestedError,
    moving,
    note,
    stop_requested,
    viewing,
    watching,
)
from safelight.provenance.charges import charging
from safelight.provenance.record import Origin
from safelight.settings import settings
from safelight.store.artifact import ArtifactRef, MediaKind
from safelight.store.results import RESULTS, SafelightResults
from tasks.base.calling import Call, Counts, Declared, Needs, call_of, calling
from tasks.base.facts import facts_of
from tasks.base.inline import inline_state, is_inline, kept_result
from tasks.base.recorder import recorder
from tasks.base.retrying import worth_retrying
from tasks.base.unfolded import unfolded_in

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound=Params)
Makes = Literal["image", "video", "other", "same", "stated"]
Reads = Mapping[str, tuple[MediaKind, ...]]
DELAYS = [2.0, 10.0]
"""Seconds before each further try of what may pass."""
KEY_REVISION = 4
"""Raised when the meaning of a key changes, so that no older result is taken for a new one."""


class Stage(Task[P, R]):
    """A Prefect task on references that also says what a pipeline has to know about it."""

    def __init__(
        self,
        fn: Callable[P, R],
        params_type: type[Params],
        reads: Reads,
        makes: Makes,
        declared: Declared,
        revision: int,
        *,
        gathers: bool = False,
        optional: bool = False,
    ) -> None:
        self.params_type = params_type
        """Its parameter model."""
        self.reads = reads
        """Name of each input, in the order of its arguments, to the media kinds it may have."""
        self.gathers = gathers
        """Whether the last input is a list: any number of pictures or videos at once."""
        self.optional = optional
        """Whether its one input may be left out; it is None then."""
        self.makes: Makes = makes
        """Media kind of its result; `same` as its first input, `stated` as its parameters say."""
        self.declared = declared
        """Its name, what it does to pixels, and what it asks of engines."""
        self.revision = revision
        """Raised when the meaning of its own keys changes."""
        super().__init__(
            self._measuring(fn),
            name=fn.__name__,
            retries=len(DELAYS),
            retry_delay_seconds=DELAYS,
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
        arguments = [*args, *kwargs.values()]
        call = Call(self.declared, arguments)
        with calling(call):
            if is_inline():
                wait_for_engines()
                state = inline_state(
                    lambda: self.fn(*args, **kwargs), lambda: self._kept_under(arguments), DELAYS
                )
            else:
                state = super().__call__(*args, return_state=True, **kwargs)
        return self.finished(state, entry, call)

    def begin(self, *args: P.args, **kwargs: P.kwargs) -> tuple[PrefectFuture[R], Call]:
        """Run the stage beside others; its end is for `finished`."""
        call = Call(self.declared, [*args, *kwargs.values()])
        with calling(call):
            return self.submit(*args, **kwargs), call

    def finished(self, state: State[Any], entry: str, call: Call) -> R:
        """Enter a finished call in the run's record as `entry`, and give its result.

        Raises:
            StopRequestedError: the stage was asked to stop.
            PipelineError: the stage failed.
        """
        recorder().add(facts_of(entry, state, call))
        if state.is_cancelled():
            raise StopRequestedError(state.message or f"{self.name} was asked to stop")
        return cast(R, state.result())

    def inputs(self, count: int) -> list[tuple[str, tuple[MediaKind, ...]]]:
        """Name and kinds of each of so many inputs: the last one repeated where it is a list."""
        each = list(self.reads.items())
        if self.gathers:
            return each + each[-1:] * (count - len(each))
        return each[:count] if self.optional else each

    def identity(self, params: Params, *references: ArtifactRef) -> EngineIdentity:
        """As what a result would count; loads nothing.

        Raises:
            PipelineError: no engine can serve these parameters.
        """
        return Call(self.declared, [*references, params]).identity

    def _key(self, context: TaskRunContext, arguments: Mapping[str, Any]) -> str | None:
        del context
        return self._kept_under(list(arguments.values()))

    def _kept_under(self, arguments: list[Any]) -> str | None:
        try:
            return cache_key(self, arguments)
        except PipelineError:
            return None  # the stage meets it again, and says so

    def _measuring(self, fn: Callable[P, R]) -> Callable[P, R]:
        @wraps(fn)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            if stop_requested():  # its result may be there: a stopped run does not wait for it
                return cast(R, _stopped(f"stopped before {fn.__name__} began"))
            listener = recorder().stage_listener(fn.__name__)
            call = call_of(self.declared, [*args, *kwargs.values()])
            with (
                watching(listener) as notes,
                viewing(recorder().view),
                moving(),
                measured() as cost,
                calling(call),
                charging(call.charges),
            ):
                try:
                    result = self._served(fn, call, *args, **kwargs)
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

    def _work(self, arguments: list[Any]) -> Work:
        """What runs now, for engines that go on with it in another process."""
        run = FlowRunContext.get()
        flow_run = run.flow_run if run is not None else None
        own = str(flow_run.id) if flow_run is not None else str(uuid4())
        # requests of a shard keep their ids in another shard, parts the id of the whole
        whose = payer() or recorder().run_id or own
        return Work(whose, lambda: f"{whose}/{cache_key(self, arguments)}")

    def _served(self, fn: Callable[P, R], call: Call, *args: P.args, **kwargs: P.kwargs) -> R:
        """The work, by the next engine where one fails that may be passed over."""
        while True:
            try:
                call.require_engines()
                with working(self._work([*args, *kwargs.values()])):
                    return cast("Callable[..., R]", fn)(
                        *(_placed(value, call) for value in args),
                        **{name: _placed(value, call) for name, value in kwargs.items()},
                    )
            except PipelineError as error:
                call.fall_back(error)
                note(f"{error.code}: {error.problem}; another engine goes on")
            transaction = get_transaction()
            if transaction is None:
                continue
            # the result is kept as what it is, and one that is there is not paid for again
            transaction.key = cache_key(self, [*args, *kwargs.values()])
            if not get_current_settings().tasks.refresh_cache:
                known = kept_result(transaction.key)
                if known is not None:
                    note("that engine's result was there: it was made before")
                    return cast(R, known)


def stage(
    *,
    reads: Reads,
    makes: Makes,
    origin: Origin,
    needs: Needs | None = None,
    identity: Counts | None = None,
    revision: int = 1,
    optional: bool = False,
    engines: tuple[str, ...] = (),
) -> Callable[[Callable[P, R]], Stage[P, R]]:
    """Make a stage of a function that takes references, then its parameters as `params`.

    Args:
        reads: name of each reference, as the function calls it and in its order, to the media
            kinds it may have; empty when it needs none. Where the function takes a list as the
            last of them, a pipeline may name any number there.
        makes: media kind of the result; `same` as that of the first reference, `stated` as the
            parameter `makes` says.
        origin: what it does to pixels; goes into the record of each file.
        needs: from parameters and references to what engines are asked for; None when the stage
            does the work itself, and `identity` then says how.
        identity: from parameters and the identities of the engines to that of the result; None
            takes that of the one engine.
        revision: raised when the meaning of the stage's keys changes.
        optional: whether its one reference may be left out; it is None then.
        engines: in order of preference, for runs that name none: remote ones are asked nowhere
            else.

    Raises:
        TypeError: `reads` does not name the function's references.
    """

    def decorate(fn: Callable[P, R]) -> Stage[P, R]:
        named = [name for name in inspect.signature(fn).parameters if name != "params"]
        if named != list(reads):
            raise TypeError(f"{fn.__name__} takes {named}, it is declared to read {list(reads)}")
        declared = Declared(
            fn.__name__, origin, needs or _nothing, identity or _of_the_one, engines
        )
        params_type = fn.__annotations__["params"]
        gathers = bool(named) and get_origin(fn.__annotations__[named[-1]]) is list
        return Stage(
            fn, params_type, reads, makes, declared, revision, gathers=gathers, optional=optional
        )

    return decorate


def cache_key(stage: Stage[..., Any], arguments: list[Any]) -> str:
    """sha256 over all that a result depends on: stage, engine, weights, parameters, inputs.

    Raises:
        PipelineError: no engine can serve, or a picture that the parameters name is not there.
    """
    call = call_of(stage.declared, arguments)
    described: dict[str, Any] = {
        "revision": KEY_REVISION,
        "stage": stage.name,
        "params": call.located.model_dump(mode="json"),
        "inputs": [_input_key(value) for value in arguments if not isinstance(value, Params)],
        "engine": call.identity.model_dump(mode="json"),
    }
    prompts = [one.model_dump(mode="json") for one in unfolded_in(call.located)]
    if prompts:  # they stand in the file
        described["unfolded"] = prompts
    if (marking := settings().marking) != "off":  # who wants signed files is given no others
        described["marking"] = marking
    if stage.revision > 1:
        described["stage_revision"] = stage.revision
    canonical = json.dumps(described, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"{stage.name}-{hashlib.sha256(canonical.encode()).hexdigest()}"


def _nothing(params: Params, references: Sequence[ArtifactRef]) -> tuple[()]:
    del params, references
    return ()


def _of_the_one(params: Params, identities: Sequence[EngineIdentity]) -> EngineIdentity:
    del params
    (identity,) = identities
    return identity


def _input_key(value: object) -> object:
    if isinstance(value, ArtifactRef):
        return value.sha256
    if isinstance(value, list | tuple):
        return [_input_key(item) for item in cast("list[object]", value)]
    if value is None:
        return None
    raise TypeError(f"a stage takes references and parameters, not {type(value).__name__}")


def _placed(value: object, call: Call) -> object:
    return call.located if isinstance(value, Params) else value


def _stopped(message: str) -> State[None]:
    """The outcome of a stage that was stopped: a state, which Prefect takes as it is.

    Prefect would keep the state's data, nothing, under the stage's key and find it again.
    """
    transaction = get_transaction()
    if transaction is not None:
        transaction.write_on_commit = False
    return Cancelled(message=message)
