"""Control pictures that stages make of photographs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safelight.errors import InvalidFieldValueError
from safelight.media.edges import canny
from safelight.progress import watching
from safelight.settings import settings
from tasks.base.controls import filling, prepared
from tasks.base.keeping import load_image
from tasks.base.sampling import guides_of
from tasks.base.stage import cache_key
from tasks.generate import GenerateParams, generate
from tasks.transform import TransformParams, transform
from tests.tiny_adapters import build_tiny_models

CAT = GenerateParams(prompt="a cat", seed=7, steps=2, width=64, height=64)


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def place(
    volume: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch, photo: np.ndarray
) -> str:
    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(tiny_models))
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
    settings.cache_clear()
    path = settings().volume_root / "uploads" / "photo.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(photo[:400]).save(path)
    return "uploads/photo.png"


def steered(place: str, **given: object) -> GenerateParams:
    return CAT.but(use_controlnet=True, controlnet_model="edges", controlnet_image=place, **given)


def test_a_photograph_of_any_size_steers_by_its_edges(place: str):
    plain = load_image(generate.fn(CAT)[0])
    as_it_is = load_image(generate.fn(steered(place))[0])
    made = {
        kind: load_image(generate.fn(steered(place, controlnet_preprocessor=kind))[0])
        for kind in ("canny", "soft_edges", "scribble")
    }
    pictures = [plain, as_it_is, *made.values()]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


def test_it_is_the_control_picture_that_one_would_make_by_hand(place: str, photo: np.ndarray):
    path = settings().volume_root / "uploads" / "edges.png"
    by_hand = canny(filling(photo[:400], 64, 64))
    Image.fromarray(by_hand).save(path)
    params = steered(place, controlnet_preprocessor="canny")
    assert np.array_equal(guides_of(params, 64, 64).controls[0], by_hand)
    ours, theirs = generate.fn(params)[0], generate.fn(steered("uploads/edges.png"))[0]
    assert np.array_equal(load_image(ours), load_image(theirs))
    assert cache_key(generate, [params]) != cache_key(generate, [steered(place)])


def test_further_controlnets_and_other_stages_prepare_theirs_too(place: str, photo: np.ndarray):
    further = {"model": "edges", "image": place, "preprocessor": "scribble", "weight": 0.5}
    params = steered(place, further_controlnets=(further,))
    shapes = [control.shape for control in guides_of(params, 96, 64).controls]
    assert shapes == [(400, 512, 3), (64, 96, 3)]
    source = settings().volume_root / "uploads" / "source.png"
    Image.fromarray(photo[60:124, 190:286]).save(source)
    from tasks.base.ingest import ingest

    over = TransformParams(
        prompt="a cat",
        seed=1,
        steps=2,
        strength=1,
        use_controlnet=True,
        controlnet_model="edges",
        controlnet_image=place,
        controlnet_preprocessor="canny",
    )
    picture = ingest(str(source), ("image",))
    drawn = load_image(transform.fn(picture, over)[0])
    assert drawn.shape == (64, 96, 3)
    assert not np.array_equal(
        drawn, load_image(transform.fn(picture, over.but(use_controlnet=False))[0])
    )


def test_what_is_cut_off_is_noted(photo: np.ndarray):
    with watching(None) as notes:
        square = filling(photo[:256], 64, 64)
    assert square.shape == (64, 64, 3)
    (said,) = notes
    assert said.startswith("the photograph for the ControlNet is 512x256 px: cut around")
    middle = filling(np.ascontiguousarray(photo[:256, 128:384]), 64, 64)
    assert np.abs(square[:, 8:-8].astype(int) - middle[:, 8:-8]).max() <= 1
    with watching(None) as notes:
        assert prepared(photo, "canny", 128, 128).shape == (128, 128, 3)
    assert not notes


def test_a_preprocessor_that_is_not_there_is_refused():
    with pytest.raises(InvalidFieldValueError, match=r"controlnet_preprocessor.*canny"):
        CAT.but(controlnet_preprocessor="depth")
