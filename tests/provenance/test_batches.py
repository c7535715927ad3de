"""Reports of batches: whole in one object, or their outcomes in parts beside it."""

from pathlib import Path
from uuid import uuid4

import pytest

from safelight.errors import MissingFileError
from safelight.provenance import batches
from safelight.provenance.batches import BatchOutcome, BatchReport, load_report, reported
from safelight.provenance.manifest import Failure
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store

pytestmark = pytest.mark.usefixtures("volume")


@pytest.fixture(name="outcomes")
def made(monkeypatch: pytest.MonkeyPatch, volume: Path) -> list[BatchOutcome]:
    monkeypatch.setattr(batches, "INLINE", 6)
    monkeypatch.setattr(batches, "PART", 4)
    monkeypatch.setattr(batches, "MOST_FAILURES", 2)
    why = Failure(code="INVALID_FIELD_VALUE", problem="too large", remedy="make it smaller")
    return [
        BatchOutcome(
            number=n,
            where=f"line {n}",
            state="failed" if n % 3 == 0 else "succeeded",
            flow_run_id=f"run-{n}",
            seconds=0.5,
            reused=n == 1,
            cost_usd=0.25,
            results=() if n % 3 == 0 else (ref(n),),
            error=why if n % 3 == 0 else None,
        )
        for n in range(1, 12)
    ]


def ref(number: int) -> ArtifactRef:
    digest = f"{number:064x}"
    return ArtifactRef(
        uri=f"store:outputs/{digest[:2]}/{digest}.png",
        sha256=digest,
        media_type="image/png",
        bytes=1,
    )


def report_of(outcomes: list[BatchOutcome]) -> BatchReport:
    begun = BatchReport(
        flow_run_id=str(uuid4()), flow="generate", batch="night", ran="workers", requests=12
    )
    reported(begun, iter(outcomes), len(outcomes))
    return load_report(begun.flow_run_id)


def test_parts_say_what_one_object_says(
    outcomes: list[BatchOutcome], monkeypatch: pytest.MonkeyPatch
):
    parted = report_of(outcomes)
    monkeypatch.setattr(batches, "INLINE", 100)
    whole = report_of(outcomes)
    assert (parted.parts, whole.parts) == (3, 0)
    assert parted.outcomes == ()
    assert [*parted.each()] == [*whole.each()] == outcomes
    assert parted.tally() == whole.tally()
    assert (
        parted.counts()
        == whole.counts()
        == {
            "requests": 12,
            "succeeded": 8,
            "failed": 3,
            "cancelled": 0,
            "unfinished": 1,
            "reused": 1,
            "cost_usd": 2.5,
        }
    )
    assert len(whole.failures()) == 3
    assert parted.failures() == whole.failures()[:2]
    assert parted.whole()["outcomes"] == whole.whole()["outcomes"]
    for first, count in ((0, 3), (2, 4), (3, 8), (8, 9), (11, 5), (0, 100)):
        assert parted.page(first, count) == whole.page(first, count) == outcomes[first:][:count]
    for digest, run in ((ref(7).sha256, "run-7"), (ref(11).sha256, "run-11"), ("f" * 64, None)):
        assert parted.made_by(digest) == whole.made_by(digest) == run


def test_a_page_reads_the_parts_that_hold_it(outcomes: list[BatchOutcome]):
    report = report_of(outcomes)
    current_store().backend.delete(batches.part_key(report.flow_run_id, 1))
    assert len(report.page(0, 4)) == 4
    assert len(report.page(8, 4)) == 3
    with pytest.raises(MissingFileError):
        report.page(3, 2)
