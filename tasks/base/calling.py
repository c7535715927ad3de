"""One call of a stage: what it was given, and the engines that serve it, chosen once."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, cast

from safelight.engines.choosing import Chosen, choose, engines, next_after
from safelight.engines.identity import EngineIdentity, PassedOver
from safelight.engines.interface import Request
from safelight.errors import PipelineError
from safelight.params import Params
from safelight.provenance.charges import Charge
from safelight.provenance.record import Origin
from safelight.store.artifact import ArtifactRef
from tasks.base.ingest import ingest
from tasks.base.recorder import avoided_engines, recorder

C = TypeVar("C")
Needs = Callable[[Any, Sequence[ArtifactRef]], Sequence[Request]]
"""From parameters and inputs to what engines are asked for; loads nothing."""
Counts = Callable[[Any, Sequence[EngineIdentity]], EngineIdentity]
"""From parameters and the identities of the engines to that of the whole stage."""


@dataclass(frozen=True)
class Declared:
    """What a stage says about itself."""

    name: str
    """The stage's own."""
    origin: Origin
    """What it does to pixels."""
    needs: Needs
    """See `Needs`."""
    counts_as: Counts
    """See `Counts`."""
    engines: tuple[str, ...] = ()
    """Engines in order of preference where a run names none."""


class Call:
    """What is known about one call while it runs and when it has ended."""

    def __init__(self, declared: Declared, arguments: Sequence[Any]) -> None:
        self.declared = declared
        self.params = params_in(arguments)
        self.references = list(references_in(arguments))
        self._chosen: tuple[Chosen, ...] | None = None
        self.charges: dict[str, Charge] = {}
        """What calls to providers cost, by our own ids of them."""

    @cached_property
    def located(self) -> Params:
        """The parameters with the pictures that they name as links, each looked into once.

        Raises:
            PipelineError: one is not there, or is no picture.
        """
        return self.params.located(lambda place: ingest(place, ("image",)).uri)

    @property
    def chosen(self) -> tuple[Chosen, ...]:
        """An engine for each request, chosen when first asked for.

        Raises:
            PipelineError: as `choose`.
        """
        if self._chosen is None:
            requests = self.declared.needs(self.params, self.references)
            order = self._order()
            self._chosen = tuple(choose(request, order) for request in requests)
        return self._chosen

    def require_engines(self) -> None:
        """Refuse the work when no engine can do it.

        Raises:
            PipelineError: as `choose`.
        """
        _ = self.chosen

    @property
    def identity(self) -> EngineIdentity:
        """As what the result counts.

        Raises:
            PipelineError: as `choose`.
        """
        identities = [chosen.identity for chosen in self.chosen]
        return self.declared.counts_as(self.params, identities)

    @property
    def passed_over(self) -> tuple[PassedOver, ...]:
        """Engines that were asked first, and why they did not serve."""
        return tuple(each for chosen in self._chosen or () for each in chosen.passed_over)

    def serving(self, capability: type[C]) -> C:
        """The engine that was chosen for a capability."""
        return next(
            chosen.engine for chosen in self.chosen if isinstance(chosen.engine, capability)
        )

    def fall_back(self, error: PipelineError) -> None:
        """Choose the next engine in place of the one that failed.

        Raises:
            PipelineError: no other may or can take over; `error` itself where it is nobody's.
        """
        chosen = self._chosen or ()
        # beside a remote engine, local ones only prepare; what they lack was known before
        remote = [each for each in chosen if each.engine.engine_type == "remote"]
        failed, *others = remote or chosen or (None,)
        if failed is None or others:
            raise error
        after = next_after(failed, error, self._order())
        self._chosen = tuple(after if each is failed else each for each in chosen)

    def _order(self) -> tuple[str, ...]:
        return _order(recorder().engines or self.declared.engines)


def _order(named: tuple[str, ...]) -> tuple[str, ...]:
    """Engines in order of preference: those named, without those that the run is to avoid.

    Local ones that it avoids come last, after all others of this process; remote ones are not
    asked.
    """
    avoided = avoided_engines()
    if not avoided:
        return named
    local = sorted(name for name, each in engines().items() if each.engine_type == "local")
    return tuple(name for name in dict.fromkeys((*named, *local)) if name not in avoided)


_current: ContextVar[Call | None] = ContextVar("call", default=None)


def current_call() -> Call:
    """The call whose stage runs now.

    Raises:
        RuntimeError: no stage runs.
    """
    call = _current.get()
    if call is None:
        raise RuntimeError("no stage runs: only the body of a stage asks for its call")
    return call


def serving(capability: type[C]) -> C:
    """The engine that the running stage's call has for a capability."""
    return current_call().serving(capability)


def call_of(declared: Declared, arguments: Sequence[Any]) -> Call:
    """The call that is under way with these arguments, or a new one."""
    call = _current.get()
    if call is not None and call.declared is declared:
        same = call.params == params_in(arguments)
        if same and call.references == list(references_in(arguments)):
            return call
    return Call(declared, arguments)


@contextmanager
def calling(call: Call) -> Generator[None]:
    """Make a call the current one, for this thread and those that begin inside."""
    token = _current.set(call)
    try:
        yield
    finally:
        _current.reset(token)


def params_in(values: Sequence[Any]) -> Params:
    """The parameters among the arguments of a stage."""
    return next(value for value in values if isinstance(value, Params))


def references_in(values: Sequence[Any]) -> Iterator[ArtifactRef]:
    """The references among them, in order."""
    for value in values:
        if isinstance(value, ArtifactRef):
            yield value
        elif isinstance(value, list | tuple):
            yield from references_in(cast("Sequence[Any]", value))
