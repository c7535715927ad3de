"""The storyboard preset through Prefect, at each level."""

from pathlib import Path

import pytest

from flows.storyboard_builder_v1 import storyboard_builder_v1
from safelight.errors import (
    ConsentMissingError,
    DependencyMissingError,
    InvalidFieldValueError,
    MissingRequiredFieldError,
)
from safelight.provenance.manifest import load_manifest
from tasks.base.keeping import load_image

pytestmark = pytest.mark.usefixtures("server", "volume")
PHOTO = str(Path(__file__).resolve().parents[2] / "examples" / "astronaut.png")
SMALL = {"generate": {"width": 64, "height": 64, "steps": 1}, "storyboard": {"cell": 64}}


@pytest.mark.parametrize(
    ("quality", "shots", "graded"), [("low", 2, 0), ("standard", 3, 0), ("pro", 4, 4)]
)
def test_shots_are_drawn_in_order_and_laid_out(quality: str, shots: int, graded: int):
    result = storyboard_builder_v1(
        prompt_template="a red heart, shot {shot_number}",
        shot_count=shots,
        seed=2**64 - 2,
        quality=quality,
        overrides=SMALL,
    )
    manifest = load_manifest(str(result.data["manifest"]))
    drawn = [entry for entry in manifest.stages if entry.stage_type == "generate"]
    assert len(drawn) == shots
    for at, entry in enumerate(drawn):
        assert f"a red heart, shot {at + 1}, storyboard frame" in str(entry.parameters["prompt"])
        assert entry.parameters["seed"] == (2**64 - 2 + at) % 2**64
    assert sum(entry.stage_type == "grade" for entry in manifest.stages) == graded
    sheet = manifest.stages[-1]
    assert sheet.stage_type == "storyboard"
    assert sheet.parameters["captions"] == [f"a red heart, shot {at + 1}" for at in range(shots)]
    assert manifest.results == sheet.results
    shown = load_image(manifest.results[0])
    assert shown.shape[1] == 2 * (64 + 4) + 4
    assert shown.shape[0] >= -(-shots // 2) * 64


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"prompt_template": "a heart", "shot_count": 2}, InvalidFieldValueError, "shot_number"),
        ({"prompt_template": "{shot_number}", "shot_count": 1}, InvalidFieldValueError, "than or"),
        ({"prompt_template": "{shot_number}", "shot_count": 11}, InvalidFieldValueError, "than or"),
        ({"prompt_template": "{shot_number}"}, MissingRequiredFieldError, "shot_count"),
    ],
)
def test_what_makes_no_storyboard_is_refused(given, error, text: str):
    with pytest.raises(error, match=text):
        storyboard_builder_v1.checked(given)


def test_a_person_is_shown_only_with_consent_and_an_adapter():
    given = {
        "prompt_template": "a sailor, {shot_number}",
        "shot_count": 2,
        "identity_reference": PHOTO,
        "overrides": SMALL,
    }
    with pytest.raises(ConsentMissingError):
        storyboard_builder_v1(**given)
    with pytest.raises(DependencyMissingError, match="ip_adapter"):
        storyboard_builder_v1(**given, consent_given=True)
