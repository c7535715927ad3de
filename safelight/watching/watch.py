"""One look into a watched folder: what is new goes through a flow, and its results to a place.

The order is what makes it safe to be killed at any moment: the file is put into the store, then its
request runs under a key made of content, then results get their names, then the content is entered
as done, and only then is the original moved or deleted. Whoever looks next goes on from there, and
each of these steps finds what it did before.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import JsonValue

from safelight.digests import sha256_of
from safelight.errors import ForbiddenPathError, InvalidMediaError, PipelineError
from safelight.exports.facts import Result, outcome_results
from safelight.exports.parts import LONGEST_FOLDER, LONGEST_NAME, Taken, fitted, part
from safelight.exports.placing import Placing
from safelight.exports.template import Template
from safelight.provenance.batches import BatchOutcome, BatchReport
from safelight.provenance.manifest import Failure
from safelight.store.artifact import ArtifactRef, MediaKind
from safelight.store.inputs import keep_as_it_came
from safelight.store.places import Place
from safelight.store.store import current_store
from safelight.watching.ledger import Entry, Ledger
from safelight.watching.source import Seen, Settling, Source

LOG = logging.getLogger(__name__)
AT_ONCE = 200
"""Contents that one look takes; the next takes more."""
REFUSED, ORIGINALS = "refused", "originals"
"""Folders of the target."""
PATIENCE = 5
"""What cannot be read may be half a file: it is refused after so many times the settling time."""
TRIES = 2
"""Looks in which a request may fail."""
Original = Literal["keep", "move", "delete"]
Run = Callable[[Sequence[tuple[str, dict[str, JsonValue]]]], BatchReport | None]
"""Runs requests, each with the name of its file; the report has them in this order."""


@dataclass(frozen=True)
class Told:
    """What became of a content in one look."""

    name: str
    state: Literal["done", "refused", "tried"]
    text: str
    result: Result | None = None
    """The first that was made of it."""
    error: Failure | None = None
    """Why it was refused."""


@dataclass
class Look:
    """What one look has met."""

    told: list[Told] = field(default_factory=list[Told])
    """What became of the contents that it took."""
    waiting: int = 0
    """Files that are not finished yet, or come next."""


@dataclass(frozen=True)
class _Taken:
    """A content with the files that hold it."""

    sha256: str
    ref: ArtifactRef
    files: list[Seen]


@dataclass
class Watch:
    """A folder, a flow, and a place for results."""

    source: Source
    place: Place
    """For results, refused files and moved originals."""
    ledger: Ledger
    takes: tuple[str, MediaKind]
    """Parameter of the flow for the file, and its kind."""
    run: Run
    template: Template
    original: Original
    settle_seconds: float
    _tries: dict[str, int] = field(default_factory=dict[str, int], init=False)
    _settling: Settling = field(init=False)

    def __post_init__(self) -> None:  # noqa: D105
        self._settling = Settling(self.settle_seconds)

    def look(self) -> Look:
        """Look once, and do what there is to do.

        Raises:
            PipelineError: store, server or disk do not serve; the next look goes on.
        """
        there = self.source.scan()
        ready = self._settling.settled(there)
        look = Look(waiting=len(there) - len(ready))
        new: dict[str, _Taken] = {}
        for seen in ready:
            if len(new) >= AT_ONCE:
                look.waiting += 1
                continue
            self._sort(seen, new, look)
        current_store().settle()
        if new:
            self._make(list(new.values()), look)
        self.ledger.keep_files(there)
        return look

    def _sort(self, seen: Seen, new: dict[str, _Taken], look: Look) -> None:
        """Find out whether a file's content is new; if it is, put it into the store."""
        known = self.ledger.content_of(seen)
        if known is not None and self.ledger.has(known):
            self._finish(known, [seen])
            return
        with self.source.opened(seen) as path:
            if path is None:
                look.waiting += 1
                return
            sha256 = sha256_of(path)
            if not self.source.is_as(seen):  # it was changed while it was read
                look.waiting += 1
                return
            self.ledger.read(seen, sha256)
            if self.ledger.has(sha256):
                self._finish(sha256, [seen])
            elif sha256 in new:
                new[sha256].files.append(seen)
            else:
                try:
                    ref = keep_as_it_came(path, (self.takes[1],))
                except InvalidMediaError as error:
                    if self._settling.quiet_seconds(seen) < PATIENCE * self.settle_seconds:
                        look.waiting += 1
                    else:
                        self._refuse(sha256, [seen], Failure.of(error), path, look)
                else:
                    new[sha256] = _Taken(sha256, ref, [seen])

    def _make(self, taken: Sequence[_Taken], look: Look) -> None:
        name, _ = self.takes
        requests: list[tuple[str, dict[str, JsonValue]]] = [
            (each.files[0].name, {name: each.ref.uri}) for each in taken
        ]
        report = self.run(requests)
        outcomes = {one.number: one for one in report.each()} if report else {}
        placing = Placing(self.place, self.template)
        for number, each in enumerate(taken, 1):
            outcome = outcomes.get(number)
            if report is None or outcome is None or outcome.state == "cancelled":
                look.waiting += 1  # the next look asks again
            elif outcome.state == "succeeded":
                self._put(each, report, outcome, placing, look)
            else:
                self._failed(each, outcome, look)

    def _put(
        self, each: _Taken, report: BatchReport, outcome: BatchOutcome, placing: Placing, look: Look
    ) -> None:
        name = each.files[0].name
        called = outcome.model_copy(update={"where": name})
        results = outcome_results(report, called)
        places = tuple(placing.put(result) for result in results)
        entry = Entry(
            name=name,
            state="done",
            flow_run_id=outcome.flow_run_id,
            results=outcome.results,
            places=places,
        )
        self.ledger.enter(each.sha256, entry)
        self._finish(each.sha256, each.files)
        look.told.append(Told(name, "done", ", ".join(places), next(iter(results), None)))

    def _failed(self, each: _Taken, outcome: BatchOutcome, look: Look) -> None:
        failure = outcome.error or Failure(
            code=PipelineError.code, problem=f"its run {outcome.state}", remedy="look at the run"
        )
        tries = self._tries[each.sha256] = self._tries.get(each.sha256, 0) + 1
        if tries < TRIES:
            look.waiting += 1
            look.told.append(Told(each.files[0].name, "tried", failure.problem))
            return
        with self.source.opened(each.files[0]) as path:
            if path is not None:
                self._refuse(each.sha256, each.files, failure, path, look)

    def _refuse(
        self, sha256: str, files: Sequence[Seen], failure: Failure, path: Path, look: Look
    ) -> None:
        first = files[0]
        text = f"{first.name}\n{failure.code}: {failure.problem}\nFix: {failure.remedy}\n"
        copy = self._copied(REFUSED, first, sha256, path)
        why = current_store().put(text.encode(), "text/plain")
        self.place.put(copy.with_name(f"{copy.name}.txt"), current_store().fetch(why), why)
        self.ledger.enter(sha256, Entry(name=first.name, state="refused", error=failure))
        self._finish(sha256, files, copied=True)
        said = f"{failure.code}: {failure.problem}"
        look.told.append(Told(first.name, "refused", said, error=failure))

    def _finish(self, sha256: str, files: Sequence[Seen], *, copied: bool = False) -> None:
        """Move or delete files whose content is done."""
        if self.original == "keep":
            return
        for seen in files:
            with suppress(ForbiddenPathError):  # it has become something else
                if self.original == "move" and not copied:
                    with self.source.opened(seen) as path:
                        if path is None:
                            continue
                        self._copied(ORIGINALS, seen, sha256, path)
                self.source.remove(seen)

    def _copied(self, folder: str, seen: Seen, sha256: str, path: Path) -> PurePosixPath:
        """A copy of a file in a folder of the target, under its own name."""
        own = PurePosixPath(seen.name)
        ref = ArtifactRef(
            uri=f"store:{sha256}",
            sha256=sha256,
            media_type="application/octet-stream",
            bytes=seen.size,
        )
        parts = [part(each, LONGEST_FOLDER) for each in own.parent.parts]
        name = part(own.stem, LONGEST_NAME) or sha256[:16]
        suffix = f".{part(own.suffix, 20)}" if part(own.suffix, 20) else ""
        paths = Taken().candidates(fitted([folder, *filter(None, parts), name], suffix), suffix)
        while True:
            copy = next(paths)
            if self.place.put(copy, path, ref) or self.place.holds(copy, ref):
                return copy


def facts_of(look: Look) -> Mapping[str, JsonValue]:
    """How many contents a look was done with, by state."""
    states = [each.state for each in look.told]
    return {state: states.count(state) for state in ("done", "refused", "tried")}
