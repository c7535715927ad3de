"""Requests and outcomes on disk, the index of shards, and what a batch that goes on has kept."""

import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flows.batching import continuing, dispatching, tabling
from flows.batching.catalogue import Catalogue, catalogued, told
from flows.batching.continuing import Continuing
from flows.batching.dispatching import Dispatch
from flows.batching.earlier import Earlier
from flows.batching.reading.files import rows_in
from flows.batching.requests import (
    MOST_REQUESTS,
    Request,
    checked_requests,
    find_target,
    listed,
    seeded,
    sorted_digest,
)
from flows.batching.shards import Shard, Sharded, keep_shard
from flows.batching.spreading import spread_rows
from safelight.errors import InvalidFieldValueError, PipelineError
from safelight.provenance.batches import BatchOutcome
from safelight.store.store import current_store


def digest(number: int) -> str:
    return f"{number:024}{0:040}"


def requests_of(count: int) -> list[Request]:
    return [
        Request(n, f"line {n}", {"prompt": f"a heart {n}", "width": 64 * (n % 2 + 1)}, digest(n), 0)
        for n in range(1, count + 1)
    ]


def outcome(number: int, state: str = "succeeded") -> BatchOutcome:
    return BatchOutcome.model_validate(
        {"number": number, "where": f"line {number}", "state": state, "flow_run_id": str(number)}
    )


def test_a_catalogue_has_the_requests_as_they_are():
    requests = requests_of(1201)
    catalogue = Catalogue(requests)
    assert catalogued(catalogue) is catalogue
    assert [*catalogue] == requests
    assert len(catalogue) == 1201
    assert (catalogue[0], catalogue[-1]) == (requests[0], requests[-1])
    assert catalogue[700:703] == requests[700:703]
    assert catalogue.numbered([900, 3]) == [requests[899], requests[2]]
    with pytest.raises(IndexError):
        catalogue[1201]
    assert sorted_digest(catalogue.identities()) == sorted_digest(
        sorted(one.identity for one in requests)
    )
    assert sum(count for _, count in catalogue.kinds()) == 1201
    assert len(catalogue.kinds()) == 2
    catalogue.seed_by("night")
    assert catalogue[5] == seeded(requests[5], "night")
    again = Catalogue()
    again.take(catalogue.written(0, 5000))
    assert [*again] == requests


def test_outcomes_are_counted_once_and_read_in_order():
    catalogue = Catalogue(requests_of(4))
    for number in (3, 1, 3):
        catalogue.outcomes[number] = outcome(number)
    catalogue.outcomes.enter([(2, told(outcome(2, "failed")))])
    assert len(catalogue.outcomes) == 3
    assert [*catalogue.outcomes] == [1, 2, 3]
    assert [each.state for each in catalogue.outcomes.in_order()] == [
        "succeeded",
        "failed",
        "succeeded",
    ]
    assert catalogue.outcomes.get(4) is None
    assert [number for number, _ in catalogue.left()] == [4]


def test_what_was_tried_before_is_tried_anew_after_it_and_alike_ones_stand_together():
    catalogue = Catalogue(requests_of(6))
    first, second = catalogue[0].identity, catalogue[1].identity
    ended = datetime.now(UTC).isoformat()
    catalogue.enter_earlier([(first, 2, ended, told(outcome(1, "failed")))])
    catalogue.enter_earlier([(first, 1, ended, told(outcome(1))), (second, 0, ended, "{}")])
    assert [number for number, *_ in catalogue.earlier()] == [1, 2]
    assert [*catalogue.left()] == [(1, 3), (3, 0), (5, 0), (2, 1), (4, 0), (6, 0)]


@pytest.mark.slow
def test_a_hundred_thousand_requests_take_a_few_mebibytes():
    tracemalloc.start()
    try:
        catalogue = Catalogue(request for request in requests_streamed(20_000))
        for number in range(1, 20_001):
            catalogue.outcomes[number] = outcome(number)
        assert sum(1 for _ in catalogue.outcomes.in_order()) == 20_000
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * 2**20


def requests_streamed(count: int):
    for n in range(1, count + 1):
        yield Request(n, f"line {n}", {"prompt": f"a heart {n}"}, digest(n), 0)


def test_rows_are_checked_as_they_are_read_and_too_many_are_refused():
    target = find_target("generate")
    stream = checked_requests(target, rows_in([b"prompt\na cat\na dog\n"], ("prompt",)), {})
    assert next(stream).parameters == {"prompt": "a cat"}
    with pytest.raises(InvalidFieldValueError, match="has 0 requests"):
        list(checked_requests(target, [], {}))
    many = ({"prompt": "x"} for _ in range(3))
    rows = iter(listed([*many]))
    spread, _ = spread_rows(rows, {}, 2)
    with pytest.raises(PipelineError, match="more than 2 requests"):
        list(spread)
    assert MOST_REQUESTS == 100_000


@pytest.mark.usefixtures("volume")
def test_shards_that_ended_are_found_by_their_own_object():
    earlier = Earlier("night")
    requests = tuple(
        Sharded(number=n, where=f"line {n}", run_id=str(uuid4()), identity=f"{n}-0", parameters={})
        for n in (1, 2)
    )
    place, name = keep_shard(Shard(flow="generate", retries=0, requests=requests), "night")
    keep_shard(Shard(flow="generate", retries=0, requests=requests[:1]), "other")
    assert earlier.unlisted() == [place]
    assert earlier.left_by(place) == []  # no request of it has left a manifest
    earlier.keep(name, [])
    assert earlier.unlisted() == [place]
    entry = ("1-0", 0, datetime.now(UTC).isoformat(), told(outcome(1)))
    earlier.keep(name, [entry])
    assert earlier.unlisted() == []
    assert [*earlier.entries()] == [entry]
    assert [*Earlier("other").entries()] == []


def test_more_than_a_flow_run_each_can_have_go_in_shards(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dispatching, "MOST_RUNS", 3)
    batch = Dispatch(find_target("generate"), requests_of(4), "night", 4, 1, shards=False)
    nobody: Any = None  # it is refused before anything is asked
    with pytest.raises(InvalidFieldValueError, match="has 4 requests, and with a flow run for"):
        batch._shards(nobody, nobody)


def test_the_table_of_many_goes_on_in_further_ones(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tabling, "ROWS_OF_PAGE", 2)
    kept: dict[str, str] = {}

    def keep(text: str, key: str, description: str) -> None:
        kept[key] = f"{description}: {text}"

    monkeypatch.setattr(tabling, "create_markdown_artifact", keep)
    catalogue = Catalogue(requests_of(5))
    catalogue.outcomes[5] = outcome(5, "failed")
    tabling.publish_tables(catalogue, catalogue.outcomes)
    assert [*kept] == ["requests", "requests-2", "requests-3"]
    assert [text.count("a heart") for text in kept.values()] == [2, 2, 1]
    assert "page 3 of 3" in kept["requests-3"]
    assert "failed" in kept["requests-3"]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch, volume: Path) -> list[datetime]:
    """When the run of a batch was asked for."""
    moments = [datetime.now(UTC)]
    run = uuid4()
    monkeypatch.setattr(continuing, "FEWEST", 3)
    monkeypatch.setattr(continuing, "PART", 2)
    monkeypatch.setattr(Continuing, "_when", lambda _: moments[-1])
    monkeypatch.setattr(Continuing, "_own", lambda _: run)
    return moments


def test_a_batch_that_goes_on_has_its_requests_and_one_that_is_retried_reads_them(
    begun: list[datetime],
):
    requests = requests_of(5)
    assert Continuing().found() is None
    Continuing().keep("night", Catalogue(requests[:2]))
    assert Continuing().found() is None  # so few are read anew
    Continuing().keep("night", Catalogue(requests))
    found = Continuing().found()
    assert found is not None
    assert found[0] == "night"
    assert [*found[1]] == requests
    begun.append(datetime.now(UTC))  # somebody retried it
    assert Continuing().found() is None
    begun.pop()
    Continuing().forget()
    assert Continuing().found() is None
    assert current_store().backend.list("outputs/batches/requests/") == []
