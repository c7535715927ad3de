"""Quality gates on pictures that do and do not show something."""

import io

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from flows.running.gating import gated
from presets.base.gate import GateParams
from safelight.errors import PictureRefusedError
from safelight.media.blankness import blank_share
from safelight.params import SEEDS
from safelight.progress import watching
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.inline import inline
from tasks.base.recorder import recording
from tasks.base.stage import cache_key
from tasks.check import CheckParams, check

pytestmark = pytest.mark.usefixtures("volume")


def stored(pixels: np.ndarray) -> ArtifactRef:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return current_store().put(
        buffer.getvalue(), "image/png", width=pixels.shape[1], height=pixels.shape[0]
    )


def plain(level: int = 0) -> np.ndarray:
    return np.full((64, 64, 3), level, np.uint8)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_one_colour_all_over_is_blank(level: int):
    dead = plain(level)
    dead[3, 3] = 255 - level
    for image in (plain(level), dead):
        with pytest.raises(PictureRefusedError, match=r"it is blank, (100\.0|99\.9|100)%"):
            check.fn(stored(image), CheckParams())
    assert check.fn(stored(plain(level)), CheckParams(blank=False)).metadata["passed"] is True


def test_little_is_not_nothing(photo: np.ndarray):
    dot = plain(255)
    dot[20:24, 20:24] = 0
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    for image in (dot, ramp, photo):
        made = check.fn(stored(image), CheckParams())
        assert made.metadata["passed"] is True
        assert made.metadata["found"] == []
        assert blank_share(image) < 0.999


def test_faces_are_counted(photo: np.ndarray):
    picture = stored(photo)
    made = check.fn(picture, CheckParams(faces=1))
    assert made.sha256 == picture.sha256
    assert made.metadata["passed"] is True
    with pytest.raises(PictureRefusedError, match=r"1 faces at confidence 0\.9, expected 2"):
        check.fn(picture, CheckParams(faces=2))
    warned = check.fn(picture, CheckParams(faces=2, policy="warn"))
    assert warned.metadata["passed"] is False
    assert warned.metadata["notes"] == ["does not pass: 1 faces at confidence 0.9, expected 2"]


def test_what_is_asked_for_is_part_of_the_key(photo: np.ndarray):
    picture = stored(photo)
    keys = {
        cache_key(check, [picture, CheckParams(**given)])
        for given in ({}, {"faces": 1}, {"faces": 1, "confidence": 0.5}, {"policy": "warn"})
    }
    assert len(keys) == 4
    assert check.identity(CheckParams()).engine_id == "numpy"
    assert check.identity(CheckParams(faces=1)).engine_id == "mtcnn"


@pytest.mark.parametrize(
    ("good", "gate", "seeds", "taken", "passed"),
    [
        ({7}, {}, [7], 7, True),
        ({9}, {}, [7, 8, 9], 9, True),
        ({9}, {"tries": 2, "then": "warn"}, [7, 8], 7, False),
        ({9}, {"policy": "warn"}, [7], 7, False),
    ],
)
def test_the_next_seed_is_drawn_until_one_passes(
    photo: np.ndarray, good: set[int], gate, seeds: list[int], taken: int, passed: bool
):
    drawn: list[int] = []

    def draw(seed: int) -> ArtifactRef:
        drawn.append(seed)
        return stored(photo if seed in good else plain(seed))

    with inline(), recording() as record:
        picture, seed = gated(draw, 7, GateParams(**gate))
    assert drawn == seeds
    assert seed == taken
    assert picture.sha256 == stored(photo if taken in good else plain(taken)).sha256
    assert record.answer["gates"] == [{"seeds": seeds, "taken": taken, "passed": passed}]
    assert [facts.stage_type for facts in record.facts] == ["check"] * len(seeds)
    assert record.facts[-1].results[0].metadata["passed"] is passed


@pytest.mark.parametrize("gate", [{"policy": "fail"}, {"tries": 2, "then": "fail"}])
def test_a_gate_may_end_the_run(gate):
    with inline(), recording() as record, pytest.raises(PictureRefusedError, match="is blank"):
        gated(lambda seed: stored(plain(seed % 256)), SEEDS - 1, GateParams(**gate))
    tries = gate.get("tries", 1)
    assert record.answer["gates"] == [
        {"seeds": [SEEDS - 1, 0][:tries], "taken": SEEDS - 1, "passed": False}
    ]
    assert record.facts[-1].status == "failed"


def test_without_a_gate_nothing_is_looked_at():
    with inline(), recording() as record, watching(None):
        picture, seed = gated(lambda seed: stored(plain()), 3, None)
    assert (picture.sha256, seed) == (stored(plain()).sha256, 3)
    assert not record.facts


def test_tries_are_bounded():
    with pytest.raises(ValidationError):
        GateParams(tries=9)
