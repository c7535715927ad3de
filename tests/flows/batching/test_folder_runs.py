"""Folders and zips that a batch runs, on a real Prefect server."""

import zipfile
from pathlib import Path

import pytest
from PIL import Image

from flows.batch import batch
from safelight.provenance.batches import load_report
from safelight.provenance.manifest import load_manifest
from tasks.base.keeping import load_image
from tests.prefect_pool import artifacts_of

pytestmark = pytest.mark.usefixtures("server")
NAMES = ("2.png", "10.png", "more/1.jpg")


def inbox(volume: Path) -> Path:
    """Three small pictures and a file that is none."""
    folder = volume / "inbox"
    for at, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").resize((24 + at, 24)).convert("RGB").save(folder / name)
    (folder / "notes.md").write_text("x")
    return folder


@pytest.mark.slow
def test_each_picture_of_a_folder_is_run_and_named(volume: Path):
    folder = inbox(volume)
    result = batch(flow="enhance", file="inbox", where="here", key="nightly")
    report = load_report(str(result.data["flow_run_id"]))
    assert [outcome.where for outcome in report.outcomes] == list(NAMES)
    assert {outcome.state for outcome in report.outcomes} == {"succeeded"}
    for outcome, name in zip(report.outcomes, NAMES, strict=True):
        given = load_manifest(outcome.flow_run_id).inputs["image"]
        kept = volume / given.uri.removeprefix("store:")
        assert kept.read_bytes() == (folder / name).read_bytes()
        height, width = load_image(outcome.results[0]).shape[:2]
        assert width * 24 == height * (24 + NAMES.index(name))
    assert result.data["left_aside"] == ["notes.md: no picture or video"]
    shown = [str(one.data) for one in artifacts_of(str(result.data["flow_run_id"]))]
    assert any(all(name in page for name in NAMES) for page in shown)

    with zipfile.ZipFile(volume / "inbox.zip", "w") as archive:
        for name in NAMES:
            archive.write(folder / name, name)
    (folder / "11.png").write_bytes((folder / "2.png").read_bytes()[:60])
    state = batch(flow="enhance", file="inbox", where="here", key="nightly", return_state=True)
    assert state.is_failed()
    assert "11.png: " in str(state.message)
    again = batch(flow="enhance", file="inbox.zip", where="here", key="nightly")
    report = load_report(str(again.data["flow_run_id"]))
    stages = [load_manifest(each.flow_run_id).stages[0].status for each in report.outcomes]
    assert stages == ["cached"] * 3
    assert [ref.sha256 for ref in again.results] == [ref.sha256 for ref in result.results]


def test_read_prompts_needs_a_file(volume: Path):
    state = batch(flow="enhance", requests=[{"image": "x"}], read_prompts=True, return_state=True)
    assert state.is_failed()
    assert "read_prompts is true, and there is no file" in str(state.message)
