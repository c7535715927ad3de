"""A character in the presets that show one: by its LoRA, by its pictures, or refused."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.identity_lock_portrait_v1 import identity_lock_portrait_v1
from flows.storyboard_builder_v1 import storyboard_builder_v1
from flows.talking_clip_v1 import talking_clip_v1
from flows.video_identity_consistency_v1 import video_identity_consistency_v1
from safelight.characters import keeping, versions
from safelight.errors import PipelineError
from safelight.media.fitting import resized
from safelight.provenance.manifest import Manifest, load_manifest
from safelight.settings import settings
from safelight.store.store import current_store
from safelight.weights.checkpoints import find_checkpoint
from tests.engines.diffusers.test_draw import make_lora
from tests.media.clips import write_video
from tests.sounds import write_tone
from tests.talking import lips
from tests.tiny_adapters import build_tiny_models

pytestmark = pytest.mark.usefixtures("server", "volume")
AGREED = {"consent_given": True, "consent_by": "Eileen"}
SMALL = {"width": 64, "height": 64, "steps": 1}
FEW = {"detail": {"steps": 2, "strength": 0.5}}
SHOTS = {
    "prompt_template": "a red house, {shot_number}",
    "shot_count": 2,
    "overrides": {"generate": SMALL, "storyboard": {"cell": 64}},
}
PORTRAIT = {"prompt": "a red house", "overrides": {"identity": SMALL}}


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build_tiny_models(tmp_path_factory.mktemp("models"))
    make_lora(folder)
    return folder


@pytest.fixture
def person(
    volume: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch, photo: np.ndarray
) -> keeping.Character:
    """One who agreed, with one picture; beside them a clip and a sound."""
    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(tiny_models))
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
    settings.cache_clear()
    uploads = volume / "uploads"
    uploads.mkdir(parents=True)
    Image.fromarray(photo).save(uploads / "face.png")
    frames = [resized(photo[:256, 100 + at : 356 + at], 160, 160) for at in range(2)]
    write_video(uploads / "clip.mp4", frames, Fraction(25))
    write_tone(uploads / "said.wav", 2 / 25)
    made = keeping.create("Eileen", trigger="eileen", style="red suit", **AGREED)
    keeping.add_picture("Eileen", uploads / "face.png", **AGREED)
    return keeping.find(made.id)


@pytest.fixture
def learnt(person: keeping.Character, tiny_models: Path) -> str:
    """The name of a LoRA of that person."""
    made = current_store().put(tiny_models / "loras" / "style.safetensors", versions.TENSORS)
    facts = {"model_sha256": find_checkpoint("tiny").sha256, "trigger": "eileen"}
    return versions.keep(person.id, 1, made, facts).model


def drawn(flow, **parameters: object) -> Manifest:
    return load_manifest(str(flow(character="Eileen", seed=1, **parameters).data["manifest"]))


@pytest.mark.slow
def test_pictures_are_looked_at_where_no_lora_was_trained(person: keeping.Character):
    portrait = drawn(identity_lock_portrait_v1, quality="low", **PORTRAIT)
    (entry,) = portrait.stages
    assert (entry.stage_type, len(entry.sources)) == ("identity", 1)
    assert "a red house, red suit, portrait photograph" in str(entry.parameters["prompt"])
    assert portrait.consent.who == "Eileen"
    sheet = drawn(storyboard_builder_v1, quality="low", **SHOTS)
    shots = [entry.parameters for entry in sheet.stages[:-1]]
    assert [len(one["ipadapter_images"]) for one in shots] == [1, 1]
    video = drawn(video_identity_consistency_v1, video="uploads/clip.mp4", overrides=FEW)
    assert video.stages[0].parameters["reference"]["weight"] == 0.75
    assert video.consent.references == {"character.0": person.pictures[0].sha256}


@pytest.mark.slow
def test_a_lora_takes_their_place(learnt: str, tmp_path: Path):
    portrait = drawn(identity_lock_portrait_v1, **PORTRAIT, use_facedetailer=True)
    entry = portrait.stages[0]
    assert entry.stage_type == "generate"
    assert [lora["name"] for lora in entry.parameters["loras"]] == [learnt]
    assert str(entry.parameters["prompt"]).startswith("eileen, a red house, red suit, portrait")
    assert (entry.parameters["steps"], entry.parameters["guidance_scale"]) == (1, 7.5)
    assert entry.parameters["use_ipadapter"] is False
    again = next(one for one in portrait.stages if one.stage_type == "detail").parameters
    assert again["reference"] is None
    assert f"<lora:{learnt}:1>" in str(again["prompt"])
    idle = {"identity": {**SMALL, "weight": 0.5}}
    with pytest.raises(PipelineError, match="looks at no photographs"):
        identity_lock_portrait_v1(prompt="a", character="Eileen", seed=1, overrides=idle)
    sheet = drawn(storyboard_builder_v1, quality="low", **SHOTS)
    assert sheet.stages[-1].parameters["captions"] == ["a red house, 1", "a red house, 2"]
    assert [one.parameters["loras"][0]["name"] for one in sheet.stages[:-1]] == [learnt] * 2
    with lips(tmp_path):
        clip = {"video": "uploads/clip.mp4", "audio": "uploads/said.wav"}
        spoken = drawn(talking_clip_v1, **clip, quality="pro", overrides=FEW).stages[1]
    assert spoken.parameters["reference"] is None
    assert f"<lora:{learnt}:1>" in str(spoken.parameters["prompt"])
    assert versions.find_version(learnt.removesuffix("-v1")).sha256 in spoken.engine.weights


@pytest.mark.usefixtures("person")
def test_who_is_shown_is_clear_before_a_run():
    both = {"character": "Eileen", "identity_reference": "uploads/face.png", "consent_given": True}
    clip = {"video": "uploads/clip.mp4"}
    given = {
        identity_lock_portrait_v1: PORTRAIT,
        storyboard_builder_v1: SHOTS,
        video_identity_consistency_v1: clip,
        talking_clip_v1: {**clip, "audio": "uploads/said.wav", "quality": "pro"},
    }
    for flow, needed in given.items():
        with pytest.raises(PipelineError, match="one person is shown"):
            flow.checked({**needed, **both})
        assert flow.checked({**needed, "character": "Eileen"})
        with pytest.raises(PipelineError) as unknown:
            flow(**needed, character="nobody", seed=1)
        assert unknown.value.code == "FILE_NOT_FOUND"
    for flow in (identity_lock_portrait_v1, video_identity_consistency_v1):
        with pytest.raises(PipelineError) as nobody:
            flow.checked(given[flow])
        assert nobody.value.code == "MISSING_REQUIRED_FIELD"
    with pytest.raises(PipelineError, match="at pro alone"):
        talking_clip_v1(**{**given[talking_clip_v1], "quality": "low"}, character="Eileen")
