"""The detail stage on photographs put together from a real one, with a real, if random, model."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from safelight.engines.diffusers.model import model_of
from safelight.engines.machine.loaded import forget_loaded
from safelight.errors import (
    DependencyMissingError,
    InvalidFieldValueError,
    InvalidMediaError,
    MissingRequiredFieldError,
)
from safelight.media.regions import STRONGEST_GAIN
from safelight.provenance.embed import read_record
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from safelight.weights.checkpoints import find_checkpoint
from safelight.weights.hashing import weights_sha256
from tasks.base.keeping import load_image
from tasks.base.recorder import recording
from tasks.base.stage import cache_key
from tasks.detail import DetailParams, detail
from tests.drawn_hand import drawn_hand
from tests.engines.spandrel_nets.tiny_upscalers import restoreformer, save

pytestmark = pytest.mark.usefixtures("tiny_model")
QUICK = DetailParams(strength=0.5, steps=4, seed=7, prompt="a photo of the cat", padding=0.3)


def stored(pixels: np.ndarray) -> ArtifactRef:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return current_store().put(
        buffer.getvalue(), "image/png", width=pixels.shape[1], height=pixels.shape[0]
    )


def small(photo: np.ndarray, side: int = 256) -> np.ndarray:
    """The face is 44 px wide and 56 high; the crop fits the model's 64 px twice."""
    scaled = Image.fromarray(photo).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(scaled)


def off(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.abs(before.astype(int) - after).max(axis=2)


def test_a_face_is_drawn_again_and_the_rest_stays(photo: np.ndarray):
    before = small(photo)
    made = detail.fn(stored(before), QUICK)
    changed = off(before, load_image(made))
    assert changed[35:82, 95:130].max() > 10
    changed[10:110, 65:160] = 0
    assert changed.max() == 0
    assert (made.width, made.height) == (256, 256)
    assert made.metadata["regions"] == 1
    found, texture = made.metadata["notes"]
    assert found == "1 face found"
    assert texture.startswith("texture 1, as for a photograph: ")


def test_no_face_gives_the_same_artifact_and_says_so():
    from skimage import data

    picture = stored(data.coffee())
    made = detail.fn(picture, DetailParams())
    assert made.sha256 == picture.sha256
    assert made.metadata["regions"] == 0
    assert made.metadata["notes"] == ["no face found at confidence 0.9"]


def test_without_a_face_the_model_is_not_loaded(photo: np.ndarray, tiny_folder: Path):
    from skimage import data

    broken = tiny_folder.parent / "broken"
    broken.mkdir()
    try:
        (broken / "model_index.json").write_text("{}")
        picture = stored(data.coffee())
        assert detail.fn(picture, QUICK.but(model="broken")).sha256 == picture.sha256
        with pytest.raises(InvalidMediaError, match="cannot be loaded"):
            detail.fn(stored(small(photo)), QUICK.but(model="broken"))
    finally:
        shutil.rmtree(broken)


@pytest.mark.parametrize("strength", [0, 0.2])
def test_too_little_strength_for_a_step_gives_the_same_artifact(photo: np.ndarray, strength: float):
    picture = stored(small(photo))
    made = detail.fn(picture, QUICK.but(strength=strength))
    assert made.sha256 == picture.sha256
    assert "1 face found; 4 steps at strength" in str(made.metadata["notes"])


def test_progress_counts_the_steps_of_all_faces(photo: np.ndarray):
    seen: list[tuple[str, int, int]] = []
    one = small(photo)
    with recording(lambda *reported: seen.append(reported)):
        detail.fn(stored(np.hstack([one, one])), QUICK)
    drawn = [(done, total) for _, done, total in seen if done > 0]
    assert drawn == [(1, 4), (2, 4), (3, 4), (4, 4)]  # half of 4 steps for each of 2 faces


def test_the_scheduler_can_be_chosen(photo: np.ndarray):
    picture = stored(small(photo, 128))
    made = [detail.fn(picture, QUICK.but(scheduler=name)).sha256 for name in ("ddim", "euler")]
    assert made[0] != made[1]
    with pytest.raises(InvalidFieldValueError, match="scheduler is 'nothing'"):
        detail.fn(picture, QUICK.but(scheduler="nothing"))


def test_several_faces_are_drawn_each_with_its_own_noise(photo: np.ndarray):
    one = small(photo)
    before = np.hstack([one, one])
    made = detail.fn(stored(before), QUICK)
    assert made.metadata["regions"] == 2
    after = load_image(made)
    changed = off(before, after)
    left, right = changed[:, :256], changed[:, 256:]
    assert left[35:82, 95:130].max() > 10
    assert right[35:82, 95:130].max() > 10
    assert not np.array_equal(after[35:82, 95:130], after[35:82, 351:386])


def test_a_face_at_the_edge_is_drawn_to_the_very_edge(photo: np.ndarray):
    before = np.ascontiguousarray(small(photo)[:, 105:])
    made = detail.fn(stored(before), QUICK)
    changed = off(before, load_image(made))
    assert made.metadata["regions"] == 1
    assert changed[35:82, 0].max() > 5
    assert changed[:, 90:].max() == 0
    assert changed[115:].max() == 0


def test_a_tiny_face_is_drawn_larger(photo: np.ndarray):
    before = small(photo, 128)
    made = detail.fn(stored(before), QUICK)
    assert made.metadata["regions"] == 1
    changed = off(before, load_image(made))
    assert changed[18:40, 48:64].max() > 10
    assert changed[60:].max() == 0


def test_a_face_that_is_large_enough_is_left_alone(photo: np.ndarray):
    picture = stored(photo)
    made = detail.fn(picture, QUICK)  # the crop takes 180 px, the model draws 64
    assert made.sha256 == picture.sha256
    assert "the model draws at most 128 px: left as it is" in str(made.metadata["notes"])


@pytest.mark.parametrize(("failures", "means"), [(1, "slices"), (2, "tiles")])
def test_memory_that_is_short_once_leaves_the_picture_and_the_next_run(
    photo: np.ndarray, failures: int, means: str
):
    calm = load_image(detail.fn(stored(small(photo)), QUICK))
    pipeline = model_of(find_checkpoint(None)).pipeline
    left = iter(range(failures))

    def fails_at_first(module: object, inputs: object) -> None:
        if next(left, None) is not None:
            raise torch.OutOfMemoryError("no room")

    hook = pipeline.unet.register_forward_pre_hook(fails_at_first)
    try:
        made = detail.fn(stored(small(photo)), QUICK)
    finally:
        hook.remove()
    notes = "; ".join(str(each) for each in made.metadata["notes"])
    assert "out of memory" in notes
    assert means in notes
    if means == "slices":  # tiles change the picture a little, as the note says
        assert off(calm, load_image(made)).max() <= STRONGEST_GAIN  # of one level, by matching
    assert not pipeline.vae.use_tiling
    again = detail.fn(stored(small(photo)), QUICK)
    assert "out of memory" not in str(again.metadata["notes"])
    assert np.array_equal(load_image(again), calm)


def test_same_seed_same_bytes(photo: np.ndarray):
    picture = stored(small(photo, 128))
    first = detail.fn(picture, QUICK)
    forget_loaded()
    assert detail.fn(picture, QUICK).sha256 == first.sha256
    assert detail.fn(picture, QUICK.but(seed=8)).sha256 != first.sha256


def test_the_file_and_the_key_know_detector_and_model(photo: np.ndarray):
    picture = stored(small(photo, 128))
    record = read_record(current_store().fetch(detail.fn(picture, QUICK)))
    assert record is not None
    assert record.stage == "detail"
    assert record.parameters["strength"] == 0.5
    assert len(record.weights) == 4
    keys = {
        cache_key(detail, [picture, QUICK.but(**change)])
        for change in ({}, {"padding": 0.5}, {"seed": 8}, {"strength": 0.4})
    }
    assert len(keys) == 4


def test_a_person_is_drawn_again_and_the_rest_stays(photo: np.ndarray):
    tiny = np.asarray(Image.fromarray(photo).resize((116, 116), Image.Resampling.LANCZOS))
    before = np.pad(tiny, ((40, 0), (20, 180), (0, 0)), "edge")
    made = detail.fn(stored(before), QUICK.but(region="person", padding=0))
    assert made.metadata["regions"] == 1
    assert made.metadata["notes"][0] == "1 person found"
    changed = off(before, load_image(made))
    assert changed[60:150, 40:90].max() > 10
    assert changed[:, 170:].max() == 0
    record = read_record(current_store().fetch(made))
    assert record is not None
    assert len(record.weights) == 5
    nobody = detail.fn(stored(photo[300:, 300:]), QUICK.but(region="person"))
    assert nobody.metadata["notes"] == ["no person found at confidence 0.9"]


def test_a_hand_is_drawn_again_and_the_rest_stays():
    tiny = np.asarray(Image.fromarray(drawn_hand()).resize((96, 96), Image.Resampling.LANCZOS))
    before = np.pad(tiny, ((30, 90), (30, 90), (0, 0)), "edge")
    made = detail.fn(stored(before), QUICK.but(region="hand", padding=0.1))
    assert made.metadata["regions"] == 1
    assert made.metadata["notes"][0] == "1 hand found"
    changed = off(before, load_image(made))
    assert changed[60:100, 60:100].max() > 10
    assert changed[:, 190:].max() == 0
    assert changed[190:].max() == 0


def test_no_hand_gives_the_same_artifact_and_says_so(photo: np.ndarray):
    picture = stored(photo[:150, :150])
    made = detail.fn(picture, QUICK.but(region="hand"))
    assert made.sha256 == picture.sha256
    assert made.metadata["notes"] == ["no hand found at confidence 0.9"]


def test_restoring_faces_without_a_network_names_the_file_and_the_folder(photo: np.ndarray):
    with pytest.raises(DependencyMissingError) as refused:
        detail.fn(stored(small(photo, 128)), QUICK.but(restore_faces=True))
    assert "GFPGANv1.4.pth" in refused.value.remedy
    assert "restorers" in refused.value.remedy
    assert "set detail.restore_faces to false" in refused.value.remedy


@pytest.mark.slow
def test_a_face_is_restored_also_where_nothing_is_drawn(photo: np.ndarray, tiny_folder: Path):
    folder = tiny_folder.parent / "restorers"
    path = save(restoreformer(), folder / "mine.pth")
    before = small(photo)
    only = QUICK.but(strength=0, restore_faces=True, seed=None)
    try:
        picture = stored(before)
        made = detail.fn(picture, only)
        changed = off(before, load_image(made))
        assert changed[35:82, 95:130].max() > 10
        changed[5:135, 45:180] = 0
        assert changed.max() == 0
        assert "1 face found; 4 steps at strength 0 are none: only restored" in str(
            made.metadata["notes"]
        )
        record = read_record(current_store().fetch(made))
        assert record is not None
        assert weights_sha256(path) in record.weights
        assert detail.fn(picture, only).sha256 == made.sha256
        half = load_image(detail.fn(picture, only.but(restore_weight=0.5)))
        mean = (before.astype(float) + load_image(made)) / 2
        assert np.abs(half - mean).max() <= 1
        assert detail.fn(picture, only.but(restore_weight=0)).sha256 == picture.sha256
        both = load_image(detail.fn(picture, QUICK.but(restore_faces=True)))
        assert off(both, load_image(made)).max() > 3
        large = np.kron(photo[30:210, 130:310], np.ones((7, 7, 1), np.uint8))
        assert "left as it is" in str(detail.fn(stored(large), only).metadata["notes"])
    finally:
        shutil.rmtree(folder)


def test_restoring_hands_is_refused():
    with pytest.raises(ValidationError, match="restore_faces is true and region is hand"):
        DetailParams(region="hand", restore_faces=True)


def test_an_unknown_model_and_a_missing_seed_are_refused(photo: np.ndarray):
    picture = stored(small(photo, 128))
    with pytest.raises(DependencyMissingError, match="no model 'nowhere'"):
        detail.fn(picture, QUICK.but(model="nowhere"))
    with pytest.raises(MissingRequiredFieldError, match="seed"):
        detail.fn(picture, QUICK.but(seed=None))


@pytest.mark.parametrize(
    "fields",
    [
        {"confidence": 1.1},
        {"padding": -0.1},
        {"strength": 2},
        {"region": "foot"},
        {"seed": -2},
        {"steps": 0},
        {"regions": 3},
    ],
)
def test_refuses_values_outside_the_limits(fields: dict[str, object]):
    with pytest.raises(ValidationError):
        DetailParams.model_validate(fields)
