import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from safelight.errors import MissingFileError, OutOfMemoryError
from safelight.provenance.manifest import (
    Failure,
    Manifest,
    ManifestUnreadableError,
    RunResult,
    UnknownArtifactError,
    keep_manifest,
    load_manifest,
)
from safelight.provenance.surroundings import device_description, versions

FAILURE = Failure.of(OutOfMemoryError("found 2 GB, expected 6", "lower upscale.tile"))


def test_it_comes_back_from_json(manifest, entry, kept):
    run = manifest(entry("generate", kept(), parameters={"seed": 7}, seconds=1.5))
    assert Manifest.model_validate_json(run.model_dump_json()) == run


def test_seeds_and_quality_are_read_from_the_run(manifest, entry):
    run = manifest(
        entry("generate", parameters={"seed": 7}),
        entry("faces", stage_type="detail", parameters={"seed": 8}),
        entry("upscale", parameters={"upscale_factor": 2}),
    )
    assert run.seeds == {"generate": 7, "faces": 8}
    assert run.quality == "pro"
    assert manifest(parameters={}).quality is None


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"error": FAILURE}, "success is true"),
        ({"started": "2026-01-01T00:00:00"}, "no offset"),
        ({"ended": "yesterday"}, "ended"),
        ({"flow_run_id": "../../etc/passwd"}, "flow_run_id"),
        ({"schema_version": 2}, "schema_version"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_does_not_fit_is_refused(manifest, facts, named):
    with pytest.raises(ValidationError, match=named):
        manifest(**facts)


def test_it_is_found_by_everything_that_names_the_run(store, manifest, entry, kept, tmp_path):
    picture = kept()
    run = manifest(entry("grade", picture))
    key = keep_manifest(store, run)
    assert key == f"outputs/manifests/{run.flow_run_id}.json"
    copy = tmp_path / "downloaded.png"
    copy.write_bytes(store.read(picture))
    file = tmp_path / "manifest.json"
    file.write_bytes(store.read_record(key))
    for location in (
        key,
        f"store:{key}",
        run.flow_run_id,
        picture.uri,
        picture.sha256,
        copy,
        str(copy),
        file,
    ):
        assert load_manifest(location) == run, location


def test_an_artifact_leads_to_the_first_run_that_made_it(store, manifest, entry, kept):
    picture = kept()
    failed = manifest(entry("grade", picture), run=1, success=False, error=FAILURE)
    first = manifest(entry("grade", picture), run=2)
    second = manifest(entry("grade", picture, status="cached"), run=3)
    keep_manifest(store, failed)
    assert load_manifest(picture.uri) == failed
    keep_manifest(store, first)
    keep_manifest(store, second)
    keep_manifest(store, failed)
    assert load_manifest(picture.uri) == first
    store.backend.delete(first.key)
    keep_manifest(store, second)
    assert load_manifest(picture.uri) == second


def test_a_damaged_index_is_mended_by_the_next_run(store, manifest, entry, kept):
    picture = kept()
    run = manifest(entry("grade", picture))
    keep_manifest(store, run)
    index = f"outputs/manifests/by-artifact/{picture.sha256}.json"
    store.write_record(index, b"{")
    with pytest.raises(UnknownArtifactError):
        load_manifest(picture.uri)
    keep_manifest(store, run)
    assert load_manifest(picture.uri) == run


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "the whole file"),
        ("{}", "field flow"),
        ('{"schema_version": 2}', "field schema_version"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(volume, tmp_path, content, named):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ManifestUnreadableError, match=rf"other\.json is not .*{named}") as caught:
        load_manifest(path)
    assert caught.value.code == "INVALID_FIELD_VALUE"


def test_a_file_no_run_made_says_what_it_knows(store, kept, tmp_path):
    path = tmp_path / "mine.png"
    path.write_bytes(store.read(kept(stage="upscale")))
    with pytest.raises(UnknownArtifactError, match=r"mine\.png .* says that upscale made it"):
        load_manifest(path)
    path.write_bytes(b"GIF89a")
    with pytest.raises(UnknownArtifactError, match=r"[0-9a-f]\.\.\.\)\. Fix"):
        load_manifest(path)


@pytest.mark.parametrize(
    "location",
    [
        "nowhere.png",
        "outputs/manifests/none.json",
        "0a1b2c3d-0000-4000-8000-000000000009",
        "ab" * 32,
    ],
)
def test_nothing_there_is_an_error(volume, location):
    with pytest.raises(MissingFileError):
        load_manifest(location)


def test_a_key_does_not_leave_the_store(volume):
    with pytest.raises(Exception, match="PERMISSION_DENIED"):
        load_manifest("outputs/manifests/../../../etc/passwd")


def test_the_answer_of_a_flow(manifest, entry, kept):
    drawn, larger = kept(), kept(1)
    run = manifest(
        entry("generate", drawn, parameters={"seed": 7}, seconds=2.0),
        entry("upscale", larger, status="cached"),
        entry("upscale", status="failed", error=FAILURE),
        success=False,
        error=FAILURE,
    )
    answer = RunResult.of(run)
    assert (answer.success, answer.error) == (False, FAILURE)
    assert answer.artifacts == (drawn, larger)
    assert list(answer.metadata) == ["generate", "upscale", "upscale 2"]
    assert answer.metadata["generate"]["seconds"] == 2.0
    assert answer.metadata["generate"]["results"] == [drawn.uri]
    assert answer.data["seeds"] == {"generate": 7}
    assert answer.data["manifest"] == f"store:{run.key}"
    assert RunResult.model_validate_json(answer.model_dump_json()) == answer


def test_versions_are_those_installed_and_nothing_is_imported():
    program = (
        "import sys;"
        "from safelight.provenance.surroundings import device_description, versions;"
        "import json; device_description('cpu'); print(json.dumps(versions()));"
        "assert not {'torch', 'diffusers', 'av', 'ncnn', 'prefect'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    found = json.loads(done.stdout)
    assert found == versions()
    assert found["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert found["safelight"] == "0.1.0"


def test_devices_have_names():
    assert device_description("cpu")
    assert device_description("cuda")


@pytest.mark.parametrize("location", ["x" * 5000, "a/" * 3000, "a\0b", "\udcff"])
def test_what_can_be_no_name_of_a_file_names_no_run(store, location):
    with pytest.raises(MissingFileError):
        load_manifest(location, store)
