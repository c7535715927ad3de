"""What a batch will take, told by what earlier ones took."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from flows.batching.durations import KINDS, KNOWN, Durations, estimate
from flows.batching.kinds import kind_of
from flows.batching.requests import Request
from flows.batching.shards import FIRST, MOST_BEFORE, WORK_SECONDS, Sizes
from safelight.provenance.batches import BatchOutcome
from safelight.store.store import current_store

pytestmark = pytest.mark.usefixtures("volume")


def asked(count: int, **parameters: object) -> list[Request]:
    return [
        Request(n, f"line {n}", {"prompt": f"word {n}", "seed": n, **parameters}, "", 0)  # pyright: ignore
        for n in range(1, count + 1)
    ]


def took(seconds: Sequence[float], **changes: object) -> list[BatchOutcome]:
    return [
        BatchOutcome.model_validate(
            {"number": n, "where": "", "state": "succeeded", "seconds": each, **changes}
        )
        for n, each in enumerate(seconds, 1)
    ]


def test_requests_that_differ_in_words_and_seed_take_as_long():
    Durations("generate").learn(asked(3, steps=8), took([2.0, 4.0, 9.0]))
    known = Durations("generate")
    assert known.of_kind(kind_of({"prompt": "other", "seed": 77, "steps": 8})) == 4.0
    assert known.of_kind(kind_of({"prompt": "other", "steps": 9})) is None
    assert Durations("enhance").of_kind(kind_of({"steps": 8})) is None


def test_pictures_of_a_store_are_alike_and_sizes_are_not():
    requests = asked(2, image="store:uploads/a.png", scale=2)
    Durations("enhance").learn(requests, took([3.0, 3.0]))
    known = Durations("enhance")
    assert known.of_kind(kind_of({"image": "store:uploads/b.png", "scale": 2})) == 3.0
    assert known.of_kind(kind_of({"image": "store:uploads/b.png", "scale": 4})) is None


def test_only_what_was_made_now_and_lately_counts():
    durations = Durations("generate")
    durations.learn(asked(1), took([50.0], reused=True))
    durations.learn(asked(1), took([50.0], state="failed"))
    assert durations.of_kind(kind_of({})) is None
    for _ in range(KNOWN):
        durations.learn(asked(1), took([1.0]))
    for _ in range(KNOWN):
        durations.learn(asked(1), took([5.0]))
    assert durations.of_kind(kind_of({})) == 5.0


def test_kinds_that_nobody_asked_for_lately_are_forgotten():
    durations = Durations("generate")
    for steps in range(KINDS + 1):
        durations.learn(asked(1, steps=steps), took([1.0]))
    known = Durations("generate")
    assert known.of_kind(kind_of({"steps": 0})) is None
    assert known.of_kind(kind_of({"steps": 1})) == known.of_kind(kind_of({"steps": KINDS})) == 1.0


@pytest.mark.parametrize("damaged", [b"", b"[]", b'{"kinds": {"a": ["x"]}}', b'{"more": 1}'])
def test_what_cannot_be_read_is_not_known(damaged: bytes):
    Durations("generate").learn(asked(1), took([1.0]))
    current_store().write_record("outputs/batches/durations/generate.json", damaged)
    assert Durations("generate").of_kind(kind_of({})) is None
    Durations("generate").learn(asked(1), took([2.0]))
    assert Durations("generate").of_kind(kind_of({})) == 2.0


def test_the_estimate_says_what_it_knows():
    assert "not known" in estimate("generate", asked(3))
    Durations("generate").learn(asked(2), took([10.0, 10.0]))
    assert "about 30 s" in estimate("generate", asked(3))
    assert "about 10 min" in estimate("generate", asked(60))
    assert "about 2.8 h" in estimate("generate", asked(1000))
    mixed = [*asked(3), *(replace(one, number=4) for one in asked(1, steps=99))]
    assert estimate("generate", mixed).endswith("; 1 of them are unlike any before")


def test_the_first_shard_goes_by_earlier_batches():
    assert Sizes().next(1000, 1) == FIRST
    assert Sizes(9.0).next(1000, 1) == int(WORK_SECONDS / 9)
    assert Sizes(0.001).next(1000, 1) == MOST_BEFORE
    assert Sizes(1000.0).next(1000, 1) == 1
    sizes = Sizes(0.001)
    sizes.took(45.0)
    assert sizes.next(1000, 1) == 1
