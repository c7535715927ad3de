"""Which engine serves a request: the first in an order of preference that can.

A further one is asked only where the one before could not be reached, could not be paid or is not
installed, and nothing can have been charged. Everything else that an engine answers is an answer:
the same request elsewhere would be another picture in silence.
"""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType, ModuleType

import safelight.engines as folder
from safelight.engines.identity import EngineIdentity, PassedOver
from safelight.engines.interface import Engine, Refusal, Request
from safelight.errors import ContractMismatchError, DependencyMissingError, PipelineError

FALLS_BACK = frozenset(
    {"ENGINE_OFFLINE", "ENGINE_TIMEOUT", "INSUFFICIENT_FUNDS", "DEPENDENCY_MISSING"}
)
"""Codes after which the next engine is asked."""


@dataclass(frozen=True)
class Chosen:
    """The engine for one request; key, record, manifest and page show this one object."""

    request: Request
    """What it is asked for."""
    engine: Engine
    """Who does it."""
    identity: EngineIdentity
    """As what its result counts."""
    tried: tuple[tuple[str, PipelineError], ...] = ()
    """Those before it in the order, by id, and why they did not serve."""

    @property
    def passed_over(self) -> tuple[PassedOver, ...]:
        """The same for manifests."""
        return tuple(
            PassedOver(engine_id=name, code=error.code, problem=error.problem, remedy=error.remedy)
            for name, error in self.tried
        )


@lru_cache(maxsize=1)
def engines() -> Mapping[str, Engine]:
    """All engines by their id: every module of this folder, or `engine` module of a package in it,
    that has one as its `ENGINE`. Importing them loads no library of theirs.
    """
    found: dict[str, Engine] = {}
    for info in pkgutil.iter_modules(folder.__path__, f"{folder.__name__}."):
        module = _module(info)
        engine = getattr(module, "ENGINE", None)
        if isinstance(engine, Engine):
            found[engine.engine_id] = engine
    return MappingProxyType(found)


def _module(info: pkgutil.ModuleInfo) -> ModuleType | None:
    if not info.ispkg:
        return importlib.import_module(info.name)
    package = importlib.import_module(info.name)
    inside = {each.name for each in pkgutil.iter_modules(package.__path__)}
    return importlib.import_module(f"{info.name}.engine") if "engine" in inside else None


def choose(
    request: Request,
    order: Sequence[str] = (),
    among: Mapping[str, Engine] | None = None,
    tried: Sequence[tuple[str, PipelineError]] = (),
) -> Chosen:
    """The first engine that can serve a request now.

    Args:
        request: what is to be done.
        order: ids of engines, the preferred first. Local engines that it does not name come after
            it, by their ids; remote ones that it does not name are never asked.
        among: the engines there are; None is all of this installation.
        tried: engines that failed with the request already, and how.

    Raises:
        ContractMismatchError: the order names an engine that does not exist.
        DependencyMissingError: there is no engine for such requests.
        PipelineError: what the first of them answered that may not be passed over; or, when all
            were passed over, what the first of all answered.
    """
    passed = list(tried)
    known = {name for name, _ in tried}
    for engine in candidates(request, order, engines() if among is None else among):
        if engine.engine_id in known:
            continue
        try:
            refusal = _refusal(engine, request)
            if refusal is None:
                identity = engine.identity(request)
                return Chosen(request, engine, identity, tuple(passed))
        except PipelineError as error:
            refusal = error
        if not falls_back(refusal):
            raise refusal
        passed.append((engine.engine_id, refusal))
    raise _none_left(request, passed)


def next_after(
    chosen: Chosen,
    error: PipelineError,
    order: Sequence[str] = (),
    among: Mapping[str, Engine] | None = None,
) -> Chosen:
    """The engine that takes a request over from one that failed with it.

    Args:
        chosen: the one that failed.
        error: how.
        order: see `choose`.
        among: see `choose`.

    Raises:
        PipelineError: as `choose`; `error` itself where it is an answer, or may have been charged.
    """
    if not falls_back(error):
        raise error
    tried = (*chosen.tried, (chosen.engine.engine_id, error))
    return choose(chosen.request, order, among, tried)


def candidates(request: Request, order: Sequence[str], among: Mapping[str, Engine]) -> list[Engine]:
    """Engines that have the capability, in the order in which they are asked.

    Raises:
        ContractMismatchError: the order names an engine that does not exist.
    """
    missing = [name for name in order if name not in among]
    if missing:
        raise ContractMismatchError(
            f"there is no engine {missing[0]!r}; there are {', '.join(sorted(among))}",
            "name one of these in engines, or install it",
        )
    others = sorted(
        name for name in among if name not in order and _is_asked_unnamed(among[name], request)
    )
    named = (among[name] for name in dict.fromkeys((*order, *others)))
    return [engine for engine in named if isinstance(engine, request.capability)]


def _is_asked_unnamed(engine: Engine, request: Request) -> bool:
    only: tuple[type, ...] = getattr(engine, "only_where_named", ())
    return engine.engine_type == "local" and request.capability not in only


def falls_back(error: PipelineError) -> bool:
    """Whether another engine may be asked instead."""
    return error.code in FALLS_BACK and not error.charged


def _refusal(engine: Engine, request: Request) -> Refusal | None:
    """What speaks against an engine, the cheapest question first."""
    return (
        engine.can(request)
        or engine.health_check()
        or engine.verify_identity()
        or engine.check_balance(request)
    )


def _none_left(request: Request, passed: Sequence[tuple[str, PipelineError]]) -> PipelineError:
    if not passed:
        capability = request.capability.__name__
        return DependencyMissingError(
            f"no engine of this installation can do it ({capability})",
            "name an engine that can in the preset's engines, or install one",
        )
    (_, first), *others = passed
    if not others:
        return first
    more = "; ".join(f"{name}: {error.code}, {error.problem}" for name, error in others)
    return type(first)(f"{first.problem}; no other engine can either: {more}", first.remedy)
