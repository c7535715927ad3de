"""How a batch of runs went, request by request, as people and programs read it."""

from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from safelight.prompts.unfolded import Unfolded
from safelight.provenance.manifest import Failure, ManifestUnreadableError
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store

REPORTS = "outputs/batches/"
INLINE = 2000
"""Requests of a report that stands in one object; the outcomes of more lie in parts beside it."""
PART = 500
"""Outcomes of a part."""
MOST_FAILURES = 200
"""Failures that the head of a report in parts names; its pages have all."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BatchOutcome(_Frozen):
    """What became of one request."""

    number: int
    """From 1."""
    where: str
    """Line, request or cell."""
    state: Literal["succeeded", "failed", "crashed", "cancelled"]
    """How its run ended."""
    flow_run_id: str = ""
    """Its run; empty when the server refused to create one."""
    seconds: float = 0.0
    """How long the run took."""
    reused: bool = False
    """An earlier run of the same batch had finished it."""
    results: tuple[ArtifactRef, ...] = ()
    """What the last stage of the run made."""
    cost_usd: float = 0.0
    """What its calls to providers cost."""
    unfolded: tuple[Unfolded, ...] = ()
    """Its prompts that held choices, with the words that were drawn."""
    error: Failure | None = None
    """Why it did not succeed."""


class Tally(_Frozen):
    """How the requests of a batch ended, counted."""

    states: dict[str, int] = {}
    """Requests by how they ended."""
    reused: int = 0
    """An earlier run had finished."""
    cost_usd: float = 0.0
    """What calls to providers cost, those of earlier runs aside."""
    seconds: float = 0.0
    """That the requests took, likewise."""
    codes: dict[str, int] = {}
    """Those that did not succeed, by the code of their failure; the empty one where none is."""

    @property
    def ended(self) -> int:
        """Requests that have an outcome."""
        return sum(self.states.values())


class BatchReport(_Frozen):
    """How a batch went; kept in the store as JSON."""

    flow_run_id: str
    """Of the batch itself."""
    flow: str
    """What each request ran."""
    batch: str
    """Names the batch; the same name finds its runs again."""
    ran: Literal["workers", "here"]
    """On workers, or one by one in the process of the batch."""
    requests: int
    """How many there are."""
    outcomes: tuple[BatchOutcome, ...] = ()
    """Of the requests that ended, in their order; empty where they lie in parts: see `each`."""
    parts: int = 0
    """Objects beside this one that hold the outcomes, so many in each; 0: they stand here."""
    counted: Tally | None = None
    """Of the outcomes in parts."""
    failed: tuple[BatchOutcome, ...] = ()
    """The first of those in parts that did not succeed."""

    def each(self) -> Iterator[BatchOutcome]:
        """All outcomes, in their order, a part at a time.

        Raises:
            MissingFileError: a part is gone.
        """
        yield from self.outcomes
        for number in range(self.parts):
            yield from self._part(number)

    def page(self, first: int, count: int) -> list[BatchOutcome]:
        """Outcomes from a place on, from 0; of the parts, those that hold them are read.

        Raises:
            MissingFileError: a part is gone.
        """
        if not self.parts:
            return [*self.outcomes[first : first + count]]
        found: list[BatchOutcome] = []
        for number in range(first // PART, min(-(-(first + count) // PART), self.parts)):
            low = number * PART
            found += self._part(number)[max(first - low, 0) : first + count - low]
        return found

    def made_by(self, sha256: str) -> str | None:
        """The run that made a file; None where none did."""
        for number in range(self.parts):
            if sha256.encode() in current_store().read_record(part_key(self.flow_run_id, number)):
                found = _made_by(self._part(number), sha256)
                if found is not None:
                    return found
        return _made_by(self.outcomes, sha256)

    def tally(self) -> Tally:
        """How its requests ended, counted."""
        return tallied(self.outcomes) if self.counted is None else self.counted

    def counts(self) -> dict[str, JsonValue]:
        """How many requests ended in which way."""
        tally = self.tally()
        spent = round(tally.cost_usd, 6)
        return {
            "requests": self.requests,
            "succeeded": tally.states.get("succeeded", 0),
            "failed": tally.states.get("failed", 0) + tally.states.get("crashed", 0),
            "cancelled": tally.states.get("cancelled", 0),
            "unfinished": self.requests - tally.ended,
            "reused": tally.reused,
            **({"cost_usd": spent} if spent else {}),
        }

    def failures(self) -> list[JsonValue]:
        """The requests that failed, each with code, problem and remedy; of many, the first."""
        return [
            {"request": outcome.where, "flow_run_id": outcome.flow_run_id, **error.model_dump()}
            for outcome in (*self.outcomes, *self.failed)
            if (error := outcome.error) is not None
        ]

    def whole(self) -> dict[str, JsonValue]:
        """All of it as JSON, the outcomes in their place."""
        head = self.model_dump(mode="json", exclude={"outcomes", "parts", "counted", "failed"})
        return {**head, "outcomes": [one.model_dump(mode="json") for one in self.each()]}

    def _part(self, number: int) -> tuple[BatchOutcome, ...]:
        key = part_key(self.flow_run_id, number)
        data = current_store().read_record(key)
        with _read(key):
            return _Part.model_validate_json(data).outcomes

    @property
    def key(self) -> str:
        """Where the store keeps it."""
        return report_key(self.flow_run_id)


def report_key(flow_run_id: str | UUID) -> str:
    """Where the store keeps the report of a batch."""
    return f"{REPORTS}{flow_run_id}.json"


def part_key(flow_run_id: str, number: int) -> str:
    """Where the store keeps a part of the outcomes of a batch."""
    return f"{REPORTS}parts/{flow_run_id}/{number:05}.json"


class _Part(_Frozen):
    outcomes: tuple[BatchOutcome, ...]


def keep_report(report: BatchReport) -> None:
    """Put the report into the store, where its run's id finds it."""
    data = report.model_dump_json(indent=1, exclude_defaults=True)
    current_store().write_record(report.key, data.encode())


def reported(begun: BatchReport, outcomes: Iterable[BatchOutcome], count: int) -> BatchReport:
    """Put the report of a batch into the store, its outcomes in parts where they are many.

    Args:
        begun: without outcomes.
        outcomes: of those that ended, in their order.
        count: how many they are.

    Returns:
        The report.
    """
    if count <= INLINE:
        report = begun.model_copy(update={"outcomes": tuple(outcomes)})
        keep_report(report)
        return report
    parts, tally, failed = 0, Tally(), list[BatchOutcome]()
    left = iter(outcomes)
    while some := tuple(islice(left, PART)):
        data = _Part(outcomes=some).model_dump_json(exclude_defaults=True)
        current_store().write_record(part_key(begun.flow_run_id, parts), data.encode())
        parts += 1
        tally = together(tally, tallied(some))
        failed += [one for one in some if one.state != "succeeded"][: MOST_FAILURES - len(failed)]
    report = begun.model_copy(update={"parts": parts, "counted": tally, "failed": tuple(failed)})
    keep_report(report)
    return report


def tallied(outcomes: Iterable[BatchOutcome]) -> Tally:
    """How some requests ended, counted."""
    states, codes = Counter[str](), Counter[str]()
    reused, cost, seconds = 0, 0.0, 0.0
    for one in outcomes:
        states[one.state] += 1
        if one.state != "succeeded":
            codes[one.error.code if one.error else ""] += 1
        if one.reused:
            reused += 1
        else:
            cost, seconds = cost + one.cost_usd, seconds + one.seconds
    return Tally(states=dict(states), reused=reused, cost_usd=cost, seconds=seconds, codes=codes)


def together(one: Tally, other: Tally) -> Tally:
    """Two counts as one."""
    return Tally(
        states=Counter(one.states) + Counter(other.states),
        reused=one.reused + other.reused,
        cost_usd=one.cost_usd + other.cost_usd,
        seconds=one.seconds + other.seconds,
        codes=Counter(one.codes) + Counter(other.codes),
    )


def _made_by(outcomes: Iterable[BatchOutcome], sha256: str) -> str | None:
    runs = (one.flow_run_id for one in outcomes for ref in one.results if ref.sha256 == sha256)
    return next(runs, None)


def load_report(flow_run_id: str | UUID) -> BatchReport:
    """The report of a batch.

    Raises:
        MissingFileError: the run left none.
        ManifestUnreadableError: it is none that this version reads.
    """
    key = report_key(flow_run_id)
    data = current_store().read_record(key)
    with _read(key):
        return BatchReport.model_validate_json(data)


@contextmanager
def _read(key: str) -> Generator[None]:
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ManifestUnreadableError(
            f"{key} is not the report of a batch: {field or 'the whole file'}: {first['msg']}",
            "delete it from the store, then run the batch again with the same key",
        ) from error
