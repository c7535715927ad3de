"""Portraits of a person on photographs: consent, weights, switches, each level through Prefect."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.cinematic_portrait_v1 import cinematic_portrait_v1
from flows.generate import generate
from flows.identity import identity
from flows.identity_lock_portrait_v1 import identity_lock_portrait_v1
from flows.photoreal_portrait_v1 import photoreal_portrait_v1
from flows.pipeline import pipeline
from flows.storyboard_builder_v1 import storyboard_builder_v1
from safelight.account import person
from safelight.digests import sha256_of
from safelight.engines.machine import loaded as loading
from safelight.errors import (
    ConsentMissingError,
    DependencyMissingError,
    InvalidFieldValueError,
    MissingFileError,
    MissingRequiredFieldError,
)
from safelight.provenance.consent import STATEMENT
from safelight.provenance.manifest import Manifest, load_manifest
from safelight.provenance.replay import find_run
from safelight.settings import settings
from tasks.base.keeping import load_image
from tests.engines.comfy.comfy_server import named_comfy
from tests.engines.comfy.test_instant_id import PACK
from tests.tiny_adapters import build_tiny_models

pytestmark = pytest.mark.usefixtures("server", "volume")
SMALL = {"width": 64, "height": 64, "steps": 2}
PORTRAIT = {"prompt": "a sailor", "seed": 3, "quality": "low"}


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def photos(
    volume: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch, photo: np.ndarray
) -> list[str]:
    """Names of three photographs under the volume root, beside models that can use them."""
    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(tiny_models))
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
    settings.cache_clear()
    folder = settings().volume_root / "uploads"
    folder.mkdir(parents=True)
    for at in range(3):
        Image.fromarray(photo[40 * at : 40 * at + 200, 150:350]).save(folder / f"{at}.png")
    return [f"uploads/{at}.png" for at in range(3)]


def manifest_of(result) -> Manifest:
    return load_manifest(str(result.data["manifest"]))


@pytest.mark.parametrize(
    ("quality", "weight", "steps", "stages"),
    [
        ("low", 0.6, 30, ["identity"]),
        ("standard", 0.75, 35, ["identity", "check"]),
        ("pro", 0.8, 40, ["identity", "check", "detail"]),
    ],
)
def test_a_person_is_drawn_at_each_level_with_its_weight(
    photos: list[str], quality: str, weight: float, steps: int, stages: list[str]
):
    from presets.identity_lock_portrait_v1 import PRESET

    assert PRESET.levels[quality].identity.steps == steps
    small = {"identity": SMALL}
    if quality != "low":  # a model that was never trained draws no faces
        small["gate"] = {"policy": "warn"}
    result = identity_lock_portrait_v1(
        prompt="a sailor",
        identity_reference=photos,
        quality=quality,
        seed=1,
        consent_given=True,
        overrides=small,
    )
    manifest = manifest_of(result)
    drawn = manifest.stages[0]
    assert [entry.stage_type for entry in manifest.stages] == stages
    assert drawn.parameters["weight"] == weight
    assert drawn.engine.engine_id == "diffusers"
    assert len(drawn.sources) == 3
    assert len(drawn.engine.weights) == 2  # the model and the adapter
    assert load_image(manifest.results[0]).shape == (64, 64, 3)
    one = identity_lock_portrait_v1(
        prompt="a sailor",
        identity_reference=photos[0],
        quality=quality,
        seed=1,
        consent_given=True,
        overrides=small,
    )
    assert one.results[0].sha256 != result.results[0].sha256


def test_consent_is_on_record_with_each_photograph(photos: list[str]):
    given = {
        "prompt": "a sailor",
        "identity_reference": photos[:2],
        "consent_given": True,
        "overrides": {"identity": SMALL},
    }
    consent = manifest_of(identity_lock_portrait_v1(**given)).consent
    assert consent is not None
    assert (consent.who, consent.known_by) == (person(), "account")
    assert consent.statement == STATEMENT
    root = settings().volume_root
    assert consent.references == {
        f"identity_reference.{at}": sha256_of(root / photos[at]) for at in range(2)
    }
    named = manifest_of(identity_lock_portrait_v1(**given, consent_by="Ada of the studio"))
    assert named.consent is not None
    assert (named.consent.who, named.consent.known_by) == ("Ada of the studio", "stated")
    assert named.started <= named.consent.when <= named.ended
    rerun = find_run(named.flow_run_id)
    assert rerun.parameters["consent_given"] is True
    assert rerun.parameters["identity_reference"] == [
        named.inputs[f"identity_reference.{at}"].uri for at in range(2)
    ]


@pytest.mark.parametrize(
    ("flow", "given"),
    [
        (identity_lock_portrait_v1, {}),
        (photoreal_portrait_v1, {}),
        (cinematic_portrait_v1, {}),
        (storyboard_builder_v1, {"prompt_template": "{shot_number}", "shot_count": 2}),
    ],
)
def test_without_consent_nothing_loads(photos: list[str], flow, given):
    loading.forget_loaded()
    called = {**(given or {"prompt": "a sailor"}), "identity_reference": photos}
    with pytest.raises(ConsentMissingError, match="consent_given is false"):
        flow.checked(called)
    with pytest.raises(ConsentMissingError, match="consent_given is false"):
        flow(**called)
    assert not loading._kept
    hidden = {"generate": {"use_ipadapter": True, "ipadapter_images": photos}}
    if flow is not identity_lock_portrait_v1:  # also where the photographs come another way
        called = {**called, "identity_reference": None, "overrides": hidden}
        with pytest.raises(ConsentMissingError):
            flow.checked(called)
        assert flow.checked({**called, "consent_given": True})


@pytest.mark.parametrize(
    "flow", [photoreal_portrait_v1, cinematic_portrait_v1], ids=lambda flow: flow.name
)
def test_a_portrait_shows_the_person_where_photographs_are_given(photos: list[str], flow):
    small = {"overrides": {"generate": SMALL}}
    plain = manifest_of(flow(**PORTRAIT, **small))
    assert plain.consent is None
    person_given = {**PORTRAIT, **small, "identity_reference": photos, "consent_given": True}
    shown = manifest_of(flow(**person_given))
    assert shown.consent is not None
    assert len(shown.consent.references) == 3
    assert shown.stages[0].parameters["use_ipadapter"] is True
    assert len(shown.stages[0].parameters["ipadapter_images"]) == 3
    assert shown.results[0].sha256 != plain.results[0].sha256
    off = manifest_of(flow(**person_given, use_ipadapter=False))
    assert off.results[0].sha256 == plain.results[0].sha256
    with pytest.raises(InvalidFieldValueError, match="no photograph"):
        flow(**PORTRAIT, use_ipadapter=True)


@pytest.mark.slow
def test_steps_are_switched_on_and_off(photos: list[str]):
    def stages(**given: object) -> list[str]:
        small = {"generate": SMALL}
        run = {**PORTRAIT, "overrides": small, **given}
        return [entry.stage_type for entry in manifest_of(photoreal_portrait_v1(**run)).stages]

    assert stages() == ["generate"]
    assert stages(use_facedetailer=True) == ["generate", "detail"]
    assert stages(use_upscale=True) == ["generate", "upscale"]
    assert stages(quality="pro") == ["generate", "detail", "upscale"]
    assert stages(quality="pro", use_facedetailer=False, use_upscale=False) == ["generate"]
    assert stages(
        quality="low",
        use_facedetailer=True,
        overrides={"generate": SMALL, "detail": {"strength": 0.2}},
    ) == ["generate", "detail"]
    assert stages(
        use_controlnet=True,
        overrides={
            "generate": {
                **SMALL,
                "controlnet_model": "edges",
                "controlnet_image": photos[0],
                "controlnet_preprocessor": "canny",
            }
        },
    ) == ["generate"]
    with pytest.raises(InvalidFieldValueError, match="controlnet_image"):
        stages(use_controlnet=True)


@pytest.mark.slow
def test_generate_has_the_same_switches(photos: list[str]):
    given = {"prompt": "a sailor", "seed": 1, **SMALL}
    result = generate(**given, num_images=2, use_facedetailer=True, use_upscale=True)
    manifest = manifest_of(result)
    assert [entry.stage_type for entry in manifest.stages] == [
        *("generate", "detail", "detail", "upscale", "upscale"),
    ]
    assert [load_image(ref).shape for ref in manifest.results] == [(128, 128, 3)] * 2
    assert manifest.stages[2].parameters["seed"] == 2
    person_shown = generate(**given, use_ipadapter=True, ipadapter_images=photos)
    assert person_shown.results[0].sha256 != generate(**given).results[0].sha256


def test_the_stage_works_alone_and_in_a_pipeline(photos: list[str]):
    given = {"references": photos, "prompt": "a sailor", "seed": 1, **SMALL}
    with pytest.raises(ConsentMissingError, match="identity draws a person"):
        identity(**given)
    alone = manifest_of(identity(**given, consent_given=True))
    assert alone.consent is not None
    assert set(alone.consent.references) == {f"identity.{at}" for at in range(3)}
    stages = [
        {"stage_type": "grade", "name": "warm", "parameters": {"colour": "warm"}},
        {
            "stage_type": "identity",
            "name": "person",
            "reads": ["warm", "image"],
            "parameters": {"prompt": "a sailor", "consent_given": True, **SMALL},
        },
    ]
    piped = manifest_of(pipeline(stages=stages, call_input={"image": photos[0]}, seed=1))
    assert piped.consent is not None
    assert len(piped.consent.references) == 2


def test_instantid_is_drawn_by_a_comfyui_which_the_manifest_names(
    photos: list[str], monkeypatch: pytest.MonkeyPatch
):
    given = {"consent_given": True, "seed": 4}
    drawn = {**SMALL, "method": "instantid", "weight": 0.6}
    locked = {"identity_reference": photos[0], "prompt": "a sailor", "quality": "low", **given}
    with named_comfy(monkeypatch) as there:
        with pytest.raises(DependencyMissingError, match="no node type 'InstantIDModelLoader'"):
            identity(references=photos, prompt="a sailor", **given, **drawn)
        assert not [asked for asked in there.asked if asked[0] == "POST"]
        there.nodes.update(PACK)
        alone = manifest_of(identity(references=photos, prompt="a sailor", **given, **drawn))
        assert len(there.uploads) == 3
        with pytest.raises(MissingRequiredFieldError, match=r"size of a ComfyUI's model"):
            identity_lock_portrait_v1(**locked, overrides={"identity": {"method": "instantid"}})
        portrait = manifest_of(identity_lock_portrait_v1(**locked, overrides={"identity": drawn}))
        weights = [
            node["inputs"]["weight"]
            for each in there.submitted
            for node in there.history[each]["prompt"][2].values()
            if node["class_type"] == "ApplyInstantID"
        ]
    assert weights == [0.6, 0.6]
    for manifest in (alone, portrait):
        assert manifest.consent is not None
        (stage,) = manifest.stages
        assert (stage.stage_type, stage.engine.engine_id) == ("identity", "local_comfy")
        assert "ip-adapter.bin" in stage.engine.version
        assert stage.parameters["method"] == "instantid"
        assert manifest.results


def test_what_cannot_be_drawn_is_refused_before_anything_loads(photos: list[str]):
    given = {"references": photos, "prompt": "a sailor", "seed": 1, "consent_given": True, **SMALL}
    loading.forget_loaded()
    with pytest.raises(DependencyMissingError, match="InstantID, and no ComfyUI is named") as none:
        identity(**given, method="instantid")
    assert "SAFELIGHT_COMFY_URL" in none.value.remedy
    with pytest.raises(InvalidFieldValueError, match="4 photographs"):
        identity(**{**given, "references": [*photos, photos[0]]})
    with pytest.raises(DependencyMissingError, match="nothing"):
        identity(**given, ipadapter_model="nothing")
    with pytest.raises(InvalidFieldValueError, match="identity_reference"):
        photoreal_portrait_v1.checked(
            {"prompt": "a", "identity_reference": photos * 2, "consent_given": True}
        )
    with pytest.raises(MissingFileError):
        photoreal_portrait_v1(prompt="a", identity_reference="uploads/9.png", consent_given=True)
    assert not loading._kept
