"""Gates by models of the models folder: whose face it is, and whether a picture is unsafe."""

import importlib.util
import json
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch

from safelight.engines.choosing import choose
from safelight.engines.facenet.network import InceptionResnet
from safelight.engines.interface import FaceRequest
from safelight.engines.judging import EmbedRequest
from safelight.engines.mtcnn import find_faces
from safelight.errors import (
    DependencyMissingError,
    InvalidFieldValueError,
    InvalidMediaError,
    PictureRefusedError,
    SafetyFilterError,
)
from safelight.settings import settings
from safelight.store.artifact import ArtifactRef
from tasks.base.stage import cache_key
from tasks.check import CheckParams, check
from tests.tasks.test_check import plain, stored


@pytest.fixture
def models(volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(tmp_path / "models"))
    settings.cache_clear()
    return tmp_path / "models"


def build_checker(folder: Path, *, finds: bool) -> None:
    """A random one whose concepts lie so that it finds them in everything, or in nothing."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPVisionConfig

    vision = CLIPVisionConfig(
        hidden_size=32,
        projection_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        intermediate_size=37,
    )
    config = CLIPConfig(vision_config=vision.to_dict(), projection_dim=16)
    torch.manual_seed(0)
    network = StableDiffusionSafetyChecker(config)
    for name in ("concept_embeds", "special_care_embeds"):
        getattr(network, name).data.normal_()
        getattr(network, f"{name}_weights").data.fill_(-2.0 if finds else 2.0)
    network.save_pretrained(folder)
    CLIPImageProcessor(crop_size=32, size=32).save_pretrained(folder)


def test_a_safety_checker_of_the_models_folder_looks(models: Path, photo: np.ndarray):
    picture = stored(photo)
    with pytest.raises(DependencyMissingError, match="there is no safety checker in"):
        check.identity(CheckParams(safe=True), picture)
    build_checker(models / "safety_checker" / "strict", finds=True)
    with pytest.raises(SafetyFilterError, match="finds it unfit for everybody"):
        check.fn(picture, CheckParams(safe=True))
    warned = check.fn(picture, CheckParams(safe=True, policy="warn"))
    assert warned.metadata["passed"] is False
    build_checker(models / "safety_checker" / "mild", finds=False)  # the first by name
    assert check.fn(picture, CheckParams(safe=True)).metadata["passed"] is True
    (models / "safety_checker" / "mild" / "preprocessor_config.json").unlink()
    with pytest.raises(DependencyMissingError, match=r"has no preprocessor_config\.json"):
        check.identity(CheckParams(safe=True), picture)


def reference_network() -> torch.nn.Module:
    """That of the package facenet-pytorch, which as a whole needs torchvision."""
    package = importlib.util.find_spec("facenet_pytorch")
    assert package is not None
    (place,) = package.submodule_search_locations or ()
    names = ("facenet_models", "facenet_models.utils")
    for name, folder in zip(names, ("models", "models/utils"), strict=True):
        module = types.ModuleType(name)
        module.__path__ = [str(Path(place) / folder)]
        module.__spec__ = ModuleSpec(name, None, is_package=True)
        sys.modules[name] = module
    try:
        found = importlib.import_module("facenet_models.inception_resnet_v1")
        return found.InceptionResnetV1(pretrained=None).eval()
    finally:
        for name in [each for each in sys.modules if each.startswith("facenet_models")]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    """Of a random network, with numbers that keep faces apart."""
    torch.manual_seed(0)
    return reference_network().state_dict()


def test_the_network_is_that_of_its_package(tensors: dict[str, torch.Tensor]):
    theirs, ours = reference_network(), InceptionResnet().eval()
    theirs.load_state_dict(tensors)
    ours.load_state_dict(tensors)
    given = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        assert torch.equal(theirs(given), ours(given))


def put_network(models: Path, tensors: dict[str, torch.Tensor]) -> None:
    folder = models / "face_recognition"
    folder.mkdir(parents=True)
    # files have the classes of their training besides
    torch.save({**tensors, "logits.weight": torch.zeros(3, 512)}, folder / "known.pt")


def test_a_face_is_compared_with_photographs(
    models: Path, photo: np.ndarray, tensors: dict[str, torch.Tensor]
):
    picture, person = stored(photo), stored(np.ascontiguousarray(photo[:, ::-1]))
    asked = CheckParams(references=(picture.uri,), similarity=0.99)
    with pytest.raises(DependencyMissingError, match="there is no file that tells faces"):
        check.identity(asked, picture)
    put_network(models, tensors)
    assert check.fn(picture, asked).metadata["passed"] is True  # it is the same photograph
    (face,) = find_faces(photo, 0.9)
    engine = choose(EmbedRequest()).engine
    vectors = [engine.embed_face(EmbedRequest(), image, face) for image in (photo, 255 - photo)]
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-5)
    alike = float(vectors[0] @ vectors[1])
    assert alike < 0.9999
    found = check.fn(
        person, CheckParams(references=(picture.uri,), similarity=1.0, policy="warn")
    ).metadata["found"]
    assert "alike to the photographs, expected at least 1" in str(found)
    with pytest.raises(PictureRefusedError, match="no face that could be compared"):
        check.fn(stored(plain()), CheckParams(references=(picture.uri,), blank=False))
    with pytest.raises(InvalidFieldValueError, match="shows no face"):
        check.fn(picture, CheckParams(references=(stored(plain()).uri,)))
    keys = {
        cache_key(check, [picture, CheckParams(**given)])
        for given in ({}, {"references": (picture.uri,)}, {"references": (person.uri,)})
    }
    assert len(keys) == 3


def test_another_file_is_told(models: Path, photo: np.ndarray):
    put_network(models, {"conv.weight": torch.zeros(1)})
    picture = stored(photo)
    with pytest.raises(InvalidMediaError, match="no file of Inception-ResNet v1"):
        check.fn(picture, CheckParams(references=(picture.uri,)))


def test_faces_are_asked_for_one_person(photo: np.ndarray):
    with pytest.raises(ValueError, match="references name one person"):
        CheckParams(references=("store:x",), faces=2)
    assert FaceRequest(0.9).confidence == 0.9


def test_most_frames_of_a_video_count(models: Path, tmp_path: Path, photo: np.ndarray):
    from fractions import Fraction

    from safelight.media.video.stream import FrameWriter
    from safelight.store.inputs import keep_media

    def clip(name: str, black: int) -> ArtifactRef:
        path = tmp_path / name
        with FrameWriter(path, Fraction(8), {}) as writer:
            for at in range(16):
                writer.add(plain() if at < black else np.ascontiguousarray(photo[:64, :64]))
        path = path.rename(path.with_suffix(".mp4"))
        return keep_media(path, ("video",))

    assert check.fn(clip("some", 4), CheckParams()).metadata["passed"] is True
    with pytest.raises(PictureRefusedError, match=r"the video .* of 8 frames: it is blank"):
        check.fn(clip("most", 12), CheckParams())
    assert json.dumps(check.fn(clip("few", 6), CheckParams()).metadata["found"]) == "[]"
