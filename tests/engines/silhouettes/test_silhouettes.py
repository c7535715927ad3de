"""People outlined around their faces: one, two, small in a large picture, and none."""

import cv2
import numpy as np
import pytest
from skimage import data

from safelight.engines.choosing import choose
from safelight.engines.interface import FaceRequest
from safelight.engines.machine.loaded import forget_loaded, loaded_stats
from safelight.engines.mending import Person, PersonRequest
from safelight.engines.mtcnn import ENGINE as FACES
from safelight.engines.results import Face
from safelight.engines.silhouettes import engine
from safelight.engines.silhouettes.engine import ENGINE, Silhouettes
from safelight.errors import ChecksumMismatchError
from safelight.pixels import Pixels

ASKED = PersonRequest()


def people(picture: Pixels) -> tuple[Person, ...]:
    return ENGINE.find_people(ASKED, picture, FACES.find_faces(FaceRequest(0.9), picture))


def near(person: Person, box: tuple[float, float, float, float], off: float) -> bool:
    found = (person.left, person.top, person.right, person.bottom)
    return bool(np.abs(np.subtract(found, box)).max() <= off)


def test_finds_one_from_the_hair_to_the_edge_that_cuts_her_off():
    """The astronaut's hair begins in row 18; sleeve and arm reach from column 20 to 370."""
    (person,) = people(data.astronaut())
    assert near(person, (20, 18, 370, 512), 12)
    assert person.confidence > 0.9


def test_finds_a_man_with_his_camera_in_grey():
    """His coat begins at the left edge, his head in row 65, and his feet stand in row 490."""
    (man,) = people(np.stack([data.camera()] * 3, axis=2))
    assert near(man, (0, 65, 310, 490), 12)


def test_two_are_told_apart_from_left_to_right():
    small = cv2.resize(data.astronaut(), (300, 300), interpolation=cv2.INTER_AREA)[:, ::-1]
    beside = np.pad(small, ((212, 0), (0, 0), (0, 0)), "edge")
    first, second = people(np.concatenate([data.astronaut(), beside], axis=1))
    assert near(first, (20, 18, 370, 512), 14)
    assert near(second, (597, 222, 800, 512), 14)


def test_shoulder_to_shoulder_each_has_a_side():
    """The same photograph twice, cut so that the sleeves touch: the border lies between faces."""
    cut = data.astronaut()[:, 20:370]
    first, second = people(np.concatenate([cut, cut], axis=1))
    assert first.right <= second.left + 2
    assert abs(first.right - 379) < 30  # half way between faces in columns 204 and 554


def test_what_stands_in_front_without_a_face_is_nobody():
    for picture in (data.chelsea(), data.coffee(), np.full((150, 97, 3), 128, np.uint8)):
        assert people(picture) == ()


def test_a_face_with_nobody_around_it_is_nobody():
    wall = np.full((200, 300, 3), 128, np.uint8)
    assert ENGINE.find_people(ASKED, wall, [Face(100, 60, 140, 110, 1.0)]) == ()


@pytest.mark.parametrize("box", [(-30.0, -30.0, 4.0, 4.0), (0.0, 0.0, 8.0, 8.0), (3, 3, 3.2, 3.2)])
def test_faces_at_and_beyond_the_edge_are_looked_at(box: tuple[float, float, float, float]):
    ENGINE.find_people(ASKED, np.full((8, 8, 3), 128, np.uint8), [Face(*box, 1.0)])


def test_the_network_is_loaded_once_and_counts_as_its_file():
    forget_loaded()
    before, face = loaded_stats().loads, Face(10, 10, 20, 20, 1.0)
    for _ in range(2):
        ENGINE.find_people(ASKED, np.zeros((40, 40, 3), np.uint8), [face])
    assert loaded_stats().loads == before + 1
    chosen = choose(ASKED)
    assert isinstance(chosen.engine, Silhouettes)
    assert len(chosen.identity.weights) == 1


def test_another_file_in_its_place_is_refused(tmp_path, monkeypatch: pytest.MonkeyPatch):
    other = tmp_path / engine.FILE.name
    other.write_bytes(engine.FILE.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(engine, "FILE", other)
    forget_loaded()
    with pytest.raises(ChecksumMismatchError):
        ENGINE.find_people(ASKED, np.zeros((8, 8, 3), np.uint8), [Face(0, 0, 8, 8, 1.0)])
