"""Hands found: upright, turned, small in a large picture, two, and none."""

import cv2
import numpy as np
import pytest
from skimage import data

from safelight.engines.choosing import choose
from safelight.engines.machine.loaded import forget_loaded, loaded_stats
from safelight.engines.mending import Hand, HandRequest
from safelight.engines.palms import engine
from safelight.engines.palms.anchors import hands_in
from safelight.engines.palms.engine import ENGINE, Palms
from safelight.errors import ChecksumMismatchError
from tests.drawn_hand import WHOLE, drawn_hand

ASKED = HandRequest(0.9)


def covers(hand: Hand, box: tuple[float, float, float, float]) -> float:
    """How much of a box lies within."""
    width = min(hand.right, box[2]) - max(hand.left, box[0])
    height = min(hand.bottom, box[3]) - max(hand.top, box[1])
    return max(width, 0) * max(height, 0) / ((box[2] - box[0]) * (box[3] - box[1]))


def on_grey(hand: np.ndarray, height: int, width: int, top: int, left: int) -> np.ndarray:
    picture = np.full((height, width, 3), 110, np.uint8)
    picture[top : top + hand.shape[0], left : left + hand.shape[1]] = hand
    return picture


@pytest.mark.parametrize("quarters", [0, 1, 3])
def test_finds_the_one_hand_whichever_way_it_points(quarters: int):
    picture = np.ascontiguousarray(np.rot90(drawn_hand(), quarters))
    (hand,) = ENGINE.find_hands(ASKED, np.pad(picture, ((64, 64), (64, 64), (0, 0)), "edge"))
    left, top, right, bottom = WHOLE
    corners = {
        0: (left, top, right, bottom),
        1: (top, 256 - right, bottom, 256 - left),
        3: (256 - bottom, left, 256 - top, right),
    }[quarters]
    assert covers(hand, tuple(64 + each for each in corners)) > 0.9
    assert hand.right - hand.left < 320
    assert hand.confidence >= 0.9


@pytest.mark.slow
def test_finds_small_hands_in_a_large_picture_from_left_to_right():
    small = cv2.resize(drawn_hand(), (160, 160), interpolation=cv2.INTER_AREA)
    picture = on_grey(small, 800, 1200, 500, 60)
    picture[40:200, 900:1060] = small[:, ::-1]
    first, second = ENGINE.find_hands(ASKED, picture)
    scale = 160 / 256
    left, top, right, bottom = (each * scale for each in WHOLE)
    assert covers(first, (60 + left, 500 + top, 60 + right, 500 + bottom)) > 0.9
    assert covers(second, (1060 - right, 40 + top, 1060 - left, 40 + bottom)) > 0.9
    assert max(first.right - first.left, second.right - second.left) < 240


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket", "astronaut", "coins"])
def test_finds_none_where_there_is_none(name: str):
    picture = getattr(data, name)()
    picture = picture if picture.ndim == 3 else np.stack([picture] * 3, axis=2)
    assert ENGINE.find_hands(HandRequest(0.9), picture) == ()


def test_tiny_and_narrow_pictures_are_looked_at():
    for shape in ((8, 8, 3), (1, 400, 3), (150, 97, 3)):
        assert ENGINE.find_hands(ASKED, np.full(shape, 128, np.uint8)) == ()


def test_the_network_is_loaded_once_and_counts_as_its_file():
    forget_loaded()
    before, small = loaded_stats().loads, np.zeros((150, 150, 3), np.uint8)
    for _ in range(2):
        ENGINE.find_hands(ASKED, small)
    assert loaded_stats().loads == before + 1
    chosen = choose(ASKED)
    assert isinstance(chosen.engine, Palms)
    assert len(chosen.identity.weights) == 1


def test_another_file_in_its_place_is_refused(tmp_path, monkeypatch: pytest.MonkeyPatch):
    other = tmp_path / engine.FILE.name
    other.write_bytes(engine.FILE.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(engine, "FILE", other)
    forget_loaded()
    with pytest.raises(ChecksumMismatchError):
        ENGINE.find_hands(ASKED, np.zeros((8, 8, 3), np.uint8))


def test_boxes_are_those_of_the_formula():
    """One palm of 40 px, at the first place, whose fingers point right: the box lies there."""
    values, scores = np.zeros((2016, 18), np.float32), np.full(2016, -9, np.float32)
    scores[0] = 3
    values[0, :4] = 96, 96, 40, 40
    values[0, 4:6], values[0, 8:10] = (80, 96), (110, 96)
    ((left, top, right, bottom, score),) = hands_in(values, scores, 0.9)
    assert (left, top, right, bottom) == pytest.approx((100 + 20 - 52, 48, 172, 152))
    assert score == pytest.approx(1 / (1 + np.exp(-3)))
    assert len(hands_in(values, scores, 0.96)) == 0
