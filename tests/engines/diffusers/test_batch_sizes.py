"""How many pictures go together: the fastest size that fits, found once."""

from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from safelight.engines.diffusers import batch_sizes
from safelight.engines.diffusers.batch_sizes import GAIN, BatchSizes
from safelight.remembered import Remembered


@pytest.fixture(autouse=True)
def _nothing_known(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_sizes, "_remembered", Remembered("batch-sizes.json"))


def tried(sizes: BatchSizes, each: dict[int, float], fits: int, pictures: int = 1000) -> list[int]:
    """Draws pictures that take `each` seconds in a batch of that size, up to `fits` at a time."""
    found: list[int] = []
    while pictures:
        count = sizes.next(pictures)
        assert 1 <= count <= pictures
        if count > fits:
            sizes.did_not_fit(count)
            continue
        found.append(count)
        sizes.took(count, count * each[min(count, max(each))])
        pictures -= count
    return found


def test_the_size_that_is_fastest_is_kept(volume: Path):
    each = {1: 1.0, 2: 0.6, 4: 0.4, 8: 0.39, 16: 0.39, 32: 0.39, 64: 0.39}
    assert tried(BatchSizes("a", 64), each, 64)[:8] == [1, 1, 2, 2, 4, 4, 8, 8]
    again = BatchSizes("a", 64)
    assert again.settled
    assert again.next(100) == 4
    assert again.next(3) == 3
    another = Remembered("batch-sizes.json")  # as another process
    assert another.get("a up to 64") == 4


def test_a_compiled_model_begins_in_the_middle_and_ends_in_sizes_it_has():
    each = dict.fromkeys((1, 2, 4, 8, 16, 32, 64), 1.0)
    sizes = BatchSizes("a", 64, compiled=True)
    assert tried(sizes, each, 64, 45) == [8, 8, 16, 8, 4, 1]
    assert tried(sizes, each, 64, 24) == [16, 8]
    assert sizes.settled
    assert tried(sizes, each, 64, 47) == [8, 8, 8, 8, 8, 4, 2, 1]
    assert tried(BatchSizes("b", 64, compiled=True), each, 4, 9) == [4, 4, 1]
    assert tried(BatchSizes("c", 5, compiled=True), each, 64, 11) == [4, 4, 2, 1]


def test_another_kind_is_tried_anew():
    tried(BatchSizes("a", 8), dict.fromkeys((1, 2, 4, 8), 1.0), 8)
    assert BatchSizes("a", 8).settled
    assert not BatchSizes("b", 8).settled


def test_what_is_remembered_in_no_known_form_is_tried_anew(volume: Path):
    (volume / "cache").mkdir(parents=True)
    (volume / "cache" / "batch-sizes.json").write_text(
        '{"a up to 64": "many", "b up to 64": 0, "c up to 64": 1000}'
    )
    assert not any(BatchSizes(kind, 64).settled for kind in "abc")


@given(
    st.lists(st.floats(0.01, 10), min_size=7, max_size=7),
    st.integers(1, 64),
    st.integers(1, 200),
)
@settings(max_examples=60)
def test_every_picture_is_drawn_and_none_in_a_batch_that_does_not_fit(
    seconds: list[float], fits: int, pictures: int
):
    batch_sizes._remembered = Remembered("batch-sizes.json")
    each = {2**power: took for power, took in enumerate(seconds)}
    each |= {size: each[2 ** (size.bit_length() - 1)] for size in range(1, 65)}
    found = tried(BatchSizes(f"{seconds}{fits}{pictures}", 64), each, fits, pictures)
    assert sum(found) == pictures
    assert max(found) <= fits


def test_a_size_settled_is_at_least_as_fast_as_the_half_of_it():
    each = {1: 1.0, 2: 0.99 / GAIN, 4: 0.5, 8: 0.2, 16: 0.3, 32: 0.1, 64: 0.1}
    sizes = BatchSizes("c", 64)
    tried(sizes, each, 64)
    assert sizes.next(64) == 8
