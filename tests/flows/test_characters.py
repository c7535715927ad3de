"""A person from their first photograph to the day they ask to be forgotten."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.compare_loras import compare_loras
from flows.generate import generate
from flows.photoreal_portrait_v1 import photoreal_portrait_v1
from flows.running.checking import RecordedFlow
from flows.train_lora import train_lora
from safelight.audit.log import files, log_folder
from safelight.characters import keeping
from safelight.characters.forgetting import delete, tombstones
from safelight.characters.versions import list_versions
from safelight.errors import PipelineError
from safelight.provenance.manifest import Manifest, load_manifest
from safelight.store.store import current_store
from safelight.weights.registry import registry
from tests.tiny_adapters import build_tiny_models

AGREED = {"consent_given": True, "consent_by": "Eileen"}
SMALL = {"seed": 1, "steps": 2, "width": 64, "height": 64}
TRAINED = {
    "max_train_steps": 2,
    "network_dim": 2,
    "network_alpha": 2,
    "learning_rate": 0.05,
    "resolution": 32,
    "bucket_reso_steps": 8,
    "sample_every": 0,
}


def manifest_of(run) -> Manifest:
    return load_manifest(str(run.data["manifest"]))


def refused(flow: RecordedFlow, **parameters) -> PipelineError:
    with pytest.raises(PipelineError) as error:
        flow(**parameters)
    return error.value


@pytest.fixture
def person(volume: Path, tmp_path: Path, photo: np.ndarray) -> keeping.Character:
    """Three photographs, as different as one can be."""
    made = keeping.create("Eileen", trigger="eileen", style="red suit", **AGREED)
    views = (photo, photo[:400, 60:460][:, ::-1], photo[:300, 80:380])
    for at, pixels in enumerate(views):
        path = tmp_path / f"{at}.png"
        Image.fromarray(np.ascontiguousarray(pixels)).save(path)
        keeping.add_picture("Eileen", path, **AGREED)
    return keeping.find(made.id)


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_a_person_from_photographs_to_a_portrait_to_nothing(
    person: keeping.Character, volume: Path
):
    models = volume / "models"
    build_tiny_models(models)
    named = {"prompt": "a red house", "character": "Eileen", **SMALL}

    # no LoRA: an IP-Adapter and the photographs
    seen = manifest_of(generate(**named))
    assert seen.stages[0].parameters["use_ipadapter"] is True
    assert len(seen.stages[0].parameters["ipadapter_images"]) == 3
    assert seen.stages[0].parameters["prompt"] == "a red house, red suit"
    assert (seen.consent.who, len(seen.consent.references)) == ("Eileen", 3)
    # neither: what to do
    (models / "ip_adapter").rename(models / "aside")
    told = refused(generate, **named)
    assert told.code == "DEPENDENCY_MISSING"
    assert "safelight train lora --character" in told.remedy
    (models / "aside").rename(models / "ip_adapter")

    learnt = train_lora(character="Eileen", model="tiny", seed=1, **TRAINED)
    assert learnt.data["lora"]["version"] == 1
    assert manifest_of(learnt).consent.who == "Eileen"
    portrait = manifest_of(generate(**named))
    drawn = portrait.stages[0].parameters
    assert drawn["prompt"] == "eileen, a red house, red suit"
    assert [lora["name"] for lora in drawn["loras"]] == [f"{person.id}-v1"]
    assert drawn["use_ipadapter"] is False
    assert list_versions(person.id)[0].sha256 in portrait.stages[0].engine.weights
    assert refused(photoreal_portrait_v1, prompt="a", character="nobody").code == "FILE_NOT_FOUND"

    traces = {person.id, "Eileen", "eileen", *(one.sha256 for one in person.pictures)}
    traces |= {version.sha256 for version in list_versions(person.id)}
    traces |= {ref.sha256 for ref in (*portrait.artifacts, *seen.artifacts)}
    gone = delete("Eileen", by="the person", reason="asked for it")
    current_store.cache_clear()
    left = [
        path for path in volume.rglob("*") if path.is_file() and not path.is_relative_to(models)
    ]
    for path in left:
        held = path.read_bytes()
        found = {trace for trace in traces if trace in str(path) or trace.encode() in held}
        assert found <= {person.id}, path
        if found:  # what is left says by its id who asked, and what was done
            told = (f"{person.id}.deleted.json", *(log.name for log in files(log_folder())))
            assert path.name in told
    assert not list((models / "loras").glob(f"{person.id}*"))
    assert not registry().list_named(f"{person.id}-v1", "lora")
    assert tombstones() == [gone]
    assert (gone.by, gone.pictures, gone.loras) == ("the person", 3, 1)


@pytest.mark.soak
@pytest.mark.usefixtures("server")
def test_of_two_versions_the_nearer_one_is_named(volume: Path):
    """One is trained on the pictures for long, the other hardly at all."""
    build_tiny_models(volume / "models")
    folder = volume / "datasets" / "toy"
    folder.mkdir(parents=True)
    for at in range(2):
        Image.new("RGB", (64, 64), (230, 40 + at, 30)).save(folder / f"{at}.png")
    asked = {"dataset": "datasets/toy", "trigger": "toy", "model": "tiny", **TRAINED}
    more = {**asked, "max_train_steps": 150, "network_dim": 8, "network_targets": "all"}
    runs = [train_lora(**one, seed=1) for one in (asked, more)]
    assert [run.data["lora"]["version"] for run in runs] == [1, 2]
    compared = compare_loras(name="toy", versions=["v1", "v2"], prompts=["{}"], seed=1)
    told = compared.data["compared"]
    assert told["references"] == 2
    assert told["nearest"] == min(told["distances"], key=told["distances"].get)
    assert len(compared.results) == 1
    again = {"name": "toy", "prompts": ["{}"], "seed": 1}
    assert refused(compare_loras, versions=["v1", "v7"], **again).code == "FILE_NOT_FOUND"
    assert refused(compare_loras, versions=["v1", "v1"], **again).code == "INVALID_FIELD_VALUE"
