from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safelight.media.video.cuts import is_cut
from safelight.media.video.retiming import (
    NOMINAL_RATES,
    frames_after,
    in_order,
    is_same,
    moment,
    nominal_rate,
    retimed,
    retimed_at,
)
from safelight.media.video.stream import read_frames

CLIP = Path(__file__).parents[3] / "examples" / "box.mp4"
NTSC = Fraction(1000, 1001)
PAIRS = [(low, high) for low in NOMINAL_RATES for high in NOMINAL_RATES if high > low]
pairs = st.sampled_from(PAIRS)
counts = st.integers(1, 5000)
factors = st.sampled_from([Fraction(1), NTSC])


@given(pair=pairs, frames=counts, factor=factors)
def test_the_duration_is_kept(pair: tuple[int, int], frames: int, factor: Fraction) -> None:
    source, target = pair[0] * factor, pair[1] * factor
    made = frames_after(frames, source, target)
    more = made / target - frames / source

    assert 0 <= more < 1 / target
    if frames * pair[1] % pair[0] == 0:
        assert more == 0


@given(pair=pairs, frames=counts, factor=factors, data=st.data())
def test_an_output_frame_lies_where_its_time_says(
    pair: tuple[int, int], frames: int, factor: Fraction, data: st.DataObject
) -> None:
    source, target = pair[0] * factor, pair[1] * factor
    index = data.draw(st.integers(0, frames_after(frames, source, target) - 1))
    found = moment(index, frames, source, target)

    assert 0 <= found.left < frames
    assert 0 <= found.timestep < 1
    if found.left < frames - 1:
        assert (found.left + found.timestep) / source == index / target
    else:
        assert found.timestep == 0


@settings(max_examples=40)
@given(pair=pairs, frames=st.integers(1, 200))
def test_every_source_frame_on_an_output_time_is_passed_on(
    pair: tuple[int, int], frames: int
) -> None:
    source, target = (Fraction(rate) for rate in pair)
    made = list(retimed(iter(numbered(frames)), frames, source, target, lambda a, b, t: MADE))
    for index in range(frames):
        shown_at = index / source * target
        if shown_at.denominator == 1:
            assert made[int(shown_at)] is CARDS[index]
    assert len(made) == frames_after(frames, source, target)


MADE = np.full((2, 2, 3), 255, np.uint8)
CARDS = [np.full((2, 2, 3), 10 * (index % 20), np.uint8) for index in range(200)]


def numbered(frames: int) -> list[np.ndarray]:
    return CARDS[:frames]


@pytest.mark.parametrize(
    ("source", "target", "steps"),
    [
        (24, 60, ["0", "2/5", "4/5", "1/5", "3/5"]),
        (30, 60, ["0", "1/2"]),
        (60, 120, ["0", "1/2"]),
        (24, 120, ["0", "1/5", "2/5", "3/5", "4/5"]),
        (25, 30, ["0", "5/6", "2/3", "1/2", "1/3", "1/6"]),
    ],
)
def test_the_pattern_of_common_pairs(source: int, target: int, steps: list[str]) -> None:
    found = [moment(i, 99, Fraction(source), Fraction(target)) for i in range(len(steps))]

    assert [str(each.timestep) for each in found] == steps


@pytest.mark.parametrize(
    ("fps", "name"),
    [
        (Fraction(24000, 1001), 24),
        (Fraction(2997, 100), 30),
        (Fraction(60000, 1001), 60),
        (Fraction(120), 120),
        (Fraction(25), 25),
        (Fraction(2453, 100), None),
        (Fraction(15), None),
        (Fraction(48), None),
    ],
)
def test_rates_go_by_their_usual_names(fps: Fraction, name: int | None) -> None:
    assert nominal_rate(fps) == name


def blend(first: np.ndarray, second: np.ndarray, timestep: float) -> np.ndarray:
    return (first * (1 - timestep) + second * timestep).round().astype(np.uint8)


def test_a_cut_repeats_the_nearest_frame(photo: np.ndarray) -> None:
    before, after = photo[:240, :320], 255 - photo[240:480, 100:420]
    shown = [before, before, after, after]
    made = list(retimed(iter(shown), 4, Fraction(24), Fraction(120), blend))

    assert len(made) == 20
    assert all(frame is before for frame in made[:8])
    assert all(frame is after for frame in made[8:])


def test_motion_is_not_taken_for_a_cut(photo: np.ndarray) -> None:
    made = list(
        retimed(iter([photo[:, :400], photo[:, 40:440]]), 2, Fraction(30), Fraction(60), blend)
    )

    assert not np.array_equal(made[1], made[0])
    assert not np.array_equal(made[1], made[2])


def test_no_frame_of_the_shipped_clip_is_a_cut() -> None:
    frames = list(read_frames(CLIP))

    assert not any(is_cut(one, two) for one, two in pairwise(frames))


def test_other_scenes_are_cuts(photo: np.ndarray) -> None:
    from skimage import data

    clip = next(read_frames(CLIP))
    others = [photo[:270, :480], data.coffee()[:270, :480], data.chelsea()[:270, :451]]
    for index, scene in enumerate(others):
        assert is_cut(clip[:, : scene.shape[1]], scene), index


def test_a_lamp_switched_on_is_no_cut(photo: np.ndarray) -> None:
    assert not is_cut(photo, np.clip(photo.astype(int) + 20, 0, 255).astype(np.uint8))


def test_frames_smaller_than_a_cell_are_compared() -> None:
    black, white = np.zeros((4, 5, 3), np.uint8), np.full((4, 5, 3), 255, np.uint8)

    assert is_cut(black, white)
    assert not is_cut(black, black)


def test_duplicates_are_not_interpolated(photo: np.ndarray) -> None:
    def never(first: np.ndarray, second: np.ndarray, timestep: float) -> np.ndarray:
        raise AssertionError

    almost = photo + (photo < 255)
    made = list(retimed(iter([photo, almost]), 2, Fraction(24), Fraction(60), never))

    assert len(made) == 5


def test_one_different_pixel_is_a_difference() -> None:
    first = np.zeros((33, 40, 3), np.uint8)
    second = first.copy()
    second[17, 3, 1] = 2

    assert not is_same(first, second)
    second[17, 3, 1] = 1
    assert is_same(first, second)


@pytest.mark.parametrize(("still", "moves"), [(Fraction(1, 6), True), (Fraction(1, 5), False)])
def test_what_stands_still_for_more_than_a_sixth_of_a_second_does_not_creep(
    photo: np.ndarray, still: Fraction, moves: bool
) -> None:
    usual = Fraction(1, 30)
    times = [0 * usual, usual, 2 * usual, 2 * usual + still]
    shown = [np.ascontiguousarray(photo[:64, at : at + 64]) for at in range(4)]
    count = int(times[-1] * 60) + 1
    made = list(retimed_at(zip(times, shown, strict=True), count, Fraction(60), blend, usual))
    inner = made[5 : count - 3]  # after the third frame, and before the last motion begins
    assert len(inner) > 3
    assert all(np.array_equal(frame, shown[2]) for frame in inner) is not moves
    assert np.array_equal(made[-1], shown[3])


def test_a_single_frame_is_held() -> None:
    made = list(retimed(iter(numbered(1)), 1, Fraction(24), Fraction(60), blend))

    assert len(made) == 3
    assert all(frame is CARDS[0] for frame in made)


def test_a_frame_is_taken_after_the_next_one_was_begun() -> None:
    happened: list[str] = []

    def begin(name: int) -> Callable[[], np.ndarray]:
        happened.append(f"begin {name}")

        def take() -> np.ndarray:
            happened.append(f"take {name}")
            return np.full((1, 1, 3), name, np.uint8)

        return take

    ready = np.zeros((1, 1, 3), np.uint8)
    shown = in_order(begin(at) if at % 3 else ready for at in range(6))
    assert next(shown) is ready
    assert happened == []
    assert [frame[0, 0, 0] for frame in shown] == [1, 2, 0, 4, 5]
    assert happened == [
        *("begin 1", "begin 2", "take 1", "begin 4", "take 2", "begin 5", "take 4", "take 5"),
    ]


def test_frames_are_not_held_back_for_one_that_never_comes() -> None:
    ready = [np.full((1, 1, 3), level, np.uint8) for level in range(9)]
    read = 0

    def frames() -> Iterator[np.ndarray | Callable[[], np.ndarray]]:
        nonlocal read
        for frame in ready:
            read += 1
            yield (lambda: ready[0]) if frame is ready[0] else frame

    for taken, frame in enumerate(in_order(frames())):
        assert frame is ready[taken]
        assert read <= taken + 3
