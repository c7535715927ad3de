"""The measure of the evaluation knows every subject again, and notices what is wrong."""

import numpy as np
import pytest
from skimage.filters import gaussian

from training.starter.metric import Pixels, moved, nearest
from training.starter.render import FONT, on_background, place, subject_glyph
from training.starter.subjects import SUBJECTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FONT.exists(), reason=f"{FONT} is not installed"),
]
NAMES = [subject.name for subject in SUBJECTS]


def reference(name: str, size: float = 56) -> Pixels:
    return on_background(place(subject_glyph(NAMES.index(name)), size))


def found(picture: Pixels) -> str:
    return NAMES[nearest(picture).subject]


def disturbed(index: int, draw: np.random.Generator) -> Pixels:
    """Moved by up to 3 px, 50 to 60 px large, blurred, and with noise of 8 levels."""
    shift = draw.uniform(-3, 3, 2)
    picture = on_background(place(subject_glyph(index), draw.uniform(50, 60), *shift)) / 255
    soft = gaussian(picture, draw.uniform(0.3, 1.2), channel_axis=-1)
    noisy = soft + draw.normal(0, 8 / 255, picture.shape)
    return np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("apart", [24, pytest.param(1, marks=pytest.mark.soak)])
def test_every_disturbed_reference_is_known_again(apart: int):
    draw = np.random.default_rng(5)
    matches = {index: nearest(disturbed(index, draw)) for index in range(0, len(SUBJECTS), apart)}
    wrong = {NAMES[i]: NAMES[m.subject] for i, m in matches.items() if m.subject != i}
    assert wrong == {}
    assert min(match.margin for match in matches.values()) > 0.05
    assert max(match.distance for match in matches.values()) < 0.5


@pytest.mark.parametrize(
    ("drawn", "instead"),
    [("red heart", "blue heart"), ("green circle", "red circle"), ("red book", "blue book")],
)
def test_colour_decides_between_equal_shapes(drawn: str, instead: str):
    assert found(reference(drawn)) == drawn
    recoloured = reference(instead)
    assert found(recoloured) == instead


def test_swapped_channels_turn_one_heart_into_another():
    assert found(reference("red heart")[..., ::-1]) in {"blue heart", "purple heart"}


def test_shape_decides_between_equal_colours():
    assert found(reference("red circle")) == "red circle"
    assert found(reference("red square")) == "red square"
    assert found(reference("red heart")[::-1]) != "red heart"


def test_noise_is_far_from_everything():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert nearest(noise).distance > 0.7


def test_what_a_move_uncovers_is_white():
    black = np.zeros((64, 64, 3), np.uint8)
    aside = moved(black, 3, -2)
    assert (aside[:, :3] == 255).all()
    assert (aside[-2:] == 255).all()
    assert (aside[:-2, 3:] == 0).all()


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(32, 32, 3\) uint8, expected \(64, 64, 3\)"):
        nearest(np.zeros((32, 32, 3), np.uint8))
