"""How long requests take, as those of earlier batches did: for estimates, and the first shards."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from statistics import median

from pydantic import BaseModel, ConfigDict, ValidationError

from flows.batching.catalogue import catalogued
from flows.batching.requests import Request
from safelight.engines.choosing import engines
from safelight.errors import PipelineError
from safelight.provenance.batches import BatchOutcome
from safelight.store.store import current_store

PREFIX = "outputs/batches/durations/"
KINDS = 200
"""Kinds of requests of a flow that are remembered, those of the latest batches."""
KNOWN = 40
"""Requests of a kind that count, the latest."""


class _Durations(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kinds: dict[str, tuple[float, ...]] = {}
    """Seconds of the latest requests of each kind, the kind of the latest batch last."""


class Durations:
    """Of one flow, as the store has them; what cannot be read is not known."""

    def __init__(self, flow: str) -> None:
        """Read them."""
        self._key = f"{PREFIX}{flow}.json"
        self._known = _Durations()
        with suppress(PipelineError, ValidationError):
            self._known = _Durations.model_validate_json(current_store().read_record(self._key))

    def of_kind(self, kind: str) -> float | None:
        """Seconds that a request of a kind probably takes, as the last did; None if none ran."""
        seconds = self._known.kinds.get(kind)
        return median(seconds) if seconds else None

    def learn(self, requests: Sequence[Request], outcomes: Iterable[BatchOutcome]) -> None:
        """Keep how long requests of a batch took that were not found finished."""
        catalogue = catalogued(requests)
        kinds = dict(self._known.kinds)
        for one in outcomes:
            if one.state != "succeeded" or one.reused:
                continue
            kind = catalogue.kind(one.number)
            if kind is not None:
                kinds[kind] = (*kinds.pop(kind, ()), one.seconds)[-KNOWN:]
        if kinds == self._known.kinds:
            return
        self._known = _Durations(kinds=dict([*kinds.items()][-KINDS:]))
        with suppress(PipelineError):  # the next batch learns it anew
            current_store().write_record(self._key, self._known.model_dump_json().encode())


def estimate(flow: str, requests: Sequence[Request]) -> str:
    """What a batch will take, in words."""
    known = Durations(flow)
    each = [(known.of_kind(kind), count) for kind, count in catalogued(requests).kinds()]
    there = sum(count for seconds, count in each if seconds is not None)
    if not there:
        return f"how long it takes is not known: no batch of {flow} with such parameters has run"
    work = sum(seconds * count for seconds, count in each if seconds is not None)
    whole = work / there * len(requests)
    told = f"takes about {_said(whole)} of one device's work, as earlier requests did"
    unlike = len(requests) - there
    return f"{told}; {unlike} of them are unlike any before" if unlike else told


def charges() -> str:
    """What a batch costs, in words."""
    paid = sorted(
        each.engine_id
        for each in engines().values()
        if each.engine_type == "remote" and getattr(each, "is_connected", True)
    )
    if not paid:
        return "costs nothing: all engines work on your own machines"
    return f"what of it {', '.join(paid)} will do, and charge, is known as it runs; budgets hold"


def _said(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
