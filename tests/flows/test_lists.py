"""Flows and pipelines whose stages take several pictures at once."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.blend import blend
from flows.pipeline import pipeline
from safelight.cli.inputs import uploaded
from safelight.errors import InvalidFieldValueError, MissingRequiredFieldError
from safelight.provenance.manifest import load_manifest
from safelight.provenance.replay import find_run
from safelight.settings import settings
from tasks.base.keeping import load_image

pytestmark = pytest.mark.usefixtures("server", "volume")
LEVELS = (40, 100, 200)


@pytest.fixture
def pictures(volume: Path) -> list[str]:
    folder = settings().volume_root / "uploads"
    folder.mkdir(parents=True)
    for level in LEVELS:
        Image.new("RGB", (16, 8), (level, level, 10)).save(folder / f"{level}.png")
    return [f"uploads/{level}.png" for level in LEVELS]


def level_of(ref) -> int:
    pixels = load_image(ref)
    assert (pixels == pixels[0, 0]).all()
    return int(pixels[0, 0, 0])


def test_pictures_are_blended_and_blended_again(pictures: list[str]):
    result = blend(pictures=pictures, weights=(1, 1, 2))
    assert level_of(result.artifacts[-1]) == round((40 + 100 + 400) / 4)
    manifest = load_manifest(str(result.data["manifest"]))
    assert list(manifest.inputs) == ["pictures.0", "pictures.1", "pictures.2"]
    for place in pictures:
        (settings().volume_root / place).unlink()
    again = find_run(str(result.data["manifest"]))
    assert blend(**again.parameters).artifacts[-1].sha256 == result.artifacts[-1].sha256


def test_a_list_of_files_is_put_into_the_store(pictures: list[str]):
    files = [str(settings().volume_root / place) for place in pictures]
    given = uploaded(
        {"pictures": [*files[:2], "store:outputs/ab/ab.png"], "weights": [1]}, here=True
    )
    assert [str(place)[:6] for place in given["pictures"]] == ["store:"] * 3
    assert given["weights"] == [1]
    assert level_of(blend(pictures=given["pictures"][:2]).artifacts[-1]) == 70


def test_a_pipeline_runs_once_for_each_file_and_once_for_all(pictures: list[str]):
    stages = [
        {"stage_type": "grade", "name": "look", "parameters": {"grain": 0.0, "colour": "none"}},
        {"stage_type": "blend", "name": "all", "reads": ["look"]},
        {"stage_type": "blend", "name": "two", "reads": ["all", "look"]},
        {"stage_type": "storyboard", "name": "sheet", "reads": ["image", "all", "two"]},
    ]
    result = pipeline(stages=stages, call_input={"image": pictures}, seed=1)
    manifest = load_manifest(str(result.data["manifest"]))
    calls = [(entry.name, len(entry.sources)) for entry in manifest.stages]
    assert calls == [*[("look", 1)] * 3, ("all", 3), ("two", 4), ("sheet", 5)]
    made = {entry.name: entry.results[0] for entry in manifest.stages}
    assert level_of(made["all"]) == round(sum(LEVELS) / 3)
    (sheet,) = [ref for ref in result.artifacts if ref.sha256 == made["sheet"].sha256]
    seen = {tuple(pixel) for pixel in load_image(sheet).reshape(-1, 3)}
    assert {(level, level, 10) for level in LEVELS} <= seen
    assert np.all(load_image(made["two"])[0, 0] == load_image(made["all"])[0, 0])


def test_lists_that_mean_nothing_are_refused(pictures: list[str]):
    with pytest.raises(MissingRequiredFieldError, match="image is an empty list"):
        pipeline(stages=[{"stage_type": "grade", "name": "a"}], call_input={"image": []})
    with pytest.raises(InvalidFieldValueError, match="1 pictures"):
        blend(pictures=pictures[:1])
    with pytest.raises(InvalidFieldValueError, match="pictures"):
        blend.checked({"pictures": []})
