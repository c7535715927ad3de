"""Faces in real photographs: whole, cut off, several, tiny, and none."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from safelight.engines import mtcnn
from safelight.engines.machine.loaded import forget_loaded
from safelight.engines.mtcnn import Face, find_faces, suppressed
from safelight.errors import DependencyMissingError
from safelight.progress import StopRequestedError, clear_stop, request_stop, watching

WHOLE = (180, 62, 268, 175)
"""The face in the photograph: hairline to chin, cheek to cheek."""


def overlap(face: Face, box: tuple[float, float, float, float]) -> float:
    width = min(face.right, box[2]) - max(face.left, box[0])
    height = min(face.bottom, box[3]) - max(face.top, box[1])
    both = max(width, 0) * max(height, 0)
    area = (face.right - face.left) * (face.bottom - face.top)
    return both / (area + (box[2] - box[0]) * (box[3] - box[1]) - both)


def test_finds_the_one_face(photo: np.ndarray):
    (face,) = find_faces(photo, 0.9)
    assert overlap(face, WHOLE) > 0.85
    assert face.confidence > 0.999


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket"])
def test_finds_none_where_there_is_none(name: str):
    from skimage import data

    assert find_faces(getattr(data, name)(), 0.9) == []


def test_finds_faces_cut_off_by_the_edge(photo: np.ndarray):
    (left,) = find_faces(photo[:, 200:], 0.9)
    assert overlap(left, (-20, 62, 68, 175)) > 0.7
    (right,) = find_faces(photo[:, :250], 0.9)
    assert overlap(right, WHOLE) > 0.7
    (top,) = find_faces(photo[70:], 0.9)
    assert overlap(top, (180, -8, 268, 105)) > 0.7


def test_finds_several_from_left_to_right(photo: np.ndarray):
    three = np.hstack([photo[:300], photo[:300, ::-1], photo[:300]])
    faces = find_faces(three, 0.9)
    assert len(faces) == 3
    for face, start in zip(faces, (180, 1023 - 268, 1024 + 180), strict=True):
        assert overlap(face, (start, 62, start + 88, 175)) > 0.75


def test_finds_a_tiny_face(photo: np.ndarray):
    small = np.asarray(Image.fromarray(photo).resize((128, 128), Image.Resampling.LANCZOS))
    (face,) = find_faces(small, 0.9)
    assert overlap(face, (45, 15.5, 67, 43.8)) > 0.6


def test_landmarks_lie_on_eyes_nose_and_mouth(photo: np.ndarray):
    (face,) = find_faces(photo, 0.9)
    by_eye = [(203, 101), (247, 104), (224, 127), (203, 140), (245, 141)]
    assert np.abs(np.array(face.landmarks) - by_eye).max() < 4
    (mirrored,) = find_faces(photo[:, ::-1], 0.9)
    back = [(511 - column, row) for column, row in mirrored.landmarks]
    swapped = [back[at] for at in (1, 0, 2, 4, 3)]
    assert np.abs(np.array(face.landmarks) - swapped).max() < 4


def test_a_large_picture_takes_no_more_of_the_first_network(photo: np.ndarray):
    sizes = []
    for side in (1600, 6000):
        scales = list(mtcnn._scales(side, side))
        sizes.append(side * scales[0])
    assert sizes[1] <= sizes[0] * 1.01
    large = np.asarray(Image.fromarray(photo).resize((2400, 2400), Image.Resampling.BILINEAR))
    (face,) = find_faces(large, 0.9)
    assert overlap(face, tuple(value * 2400 / 512 for value in WHOLE)) > 0.75


@pytest.mark.parametrize("shape", [(1, 1, 3), (11, 400, 3), (400, 11, 3)])
def test_a_picture_too_small_for_a_face_has_none(shape: tuple[int, int, int]):
    assert find_faces(np.zeros(shape, np.uint8), 0.5) == []


def test_a_higher_confidence_never_finds_more(photo: np.ndarray):
    crowd = np.hstack([photo, photo[:, ::-1]])
    counts = [len(find_faces(crowd, confidence)) for confidence in (0.3, 0.7, 0.99, 1.0)]
    assert counts == sorted(counts, reverse=True)
    assert counts[1] == 2


def test_the_same_picture_gives_the_same_boxes(photo: np.ndarray):
    assert find_faces(photo, 0.9) == find_faces(photo, 0.9)


def test_a_stop_is_heeded(photo: np.ndarray):
    request_stop()
    try:
        with pytest.raises(StopRequestedError):
            find_faces(photo, 0.9)
    finally:
        clear_stop()


def test_of_overlapping_boxes_the_best_remains():
    boxes = np.array(
        [[0, 0, 10, 10, 0.8], [1, 1, 11, 11, 0.9], [50, 50, 60, 60, 0.7], [3, 3, 6, 6, 0.6]],
        np.float32,
    )
    assert suppressed(boxes, 0.5).tolist() == [1, 2, 3]
    assert suppressed(boxes, 0.5, of_smaller=True).tolist() == [1, 2]
    assert suppressed(boxes[:0], 0.5).tolist() == []


def test_missing_weights_say_what_to_install(photo: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mtcnn, "PACKAGE", "safelight_no_such_package")
    with pytest.raises(DependencyMissingError, match="pip install --no-deps facenet-pytorch"):
        find_faces(photo, 0.9)


def test_identity_names_three_files_and_loads_nothing():
    forget_loaded()
    found = mtcnn.identity()
    assert len(found.weights) == 3
    program = (
        "import os, sys; os.environ['SAFELIGHT_DEVICE'] = 'cpu'\n"
        "from safelight.engines import mtcnn; mtcnn.identity()\n"
        "assert 'torch' not in sys.modules and 'facenet_pytorch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_progress_does_not_run_ahead_of_the_drawing(photo: np.ndarray):
    seen: list[tuple[int, int]] = []
    with watching(lambda done, total: seen.append((done, total))):
        find_faces(photo, 0.9)
    assert set(seen) == {(0, 1)}
