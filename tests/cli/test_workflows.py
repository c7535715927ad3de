"""safelight workflow: files that people bring become flows; what is wrong with them is said."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safelight.cli.edge import guarded
from safelight.cli.inputs import media_kinds
from safelight.settings import settings
from tests.engines.comfy.comfy_server import GRAPH, RECORDED, Comfy, named_comfy
from tests.workflows.test_converting import editor


@pytest.fixture
def there(volume: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Comfy]:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with named_comfy(monkeypatch) as held:
        yield held


def brought(tmp_path: Path, graph: object, name: str = "My Graph.json") -> str:
    path = tmp_path / name
    path.write_text(graph if isinstance(graph, str) else json.dumps(graph))
    return str(path)


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("graph", [GRAPH, editor()])
def test_a_file_becomes_a_flow(
    there: Comfy, tmp_path: Path, capsys: pytest.CaptureFixture[str], graph: Any
):
    assert guarded(["workflow", "add", brought(tmp_path, graph), "--json"]) == 0
    added = told(capsys)
    assert (added["workflow"], added["flow"]) == ("my_graph", "workflow_my_graph")
    assert {"prompt", "seed", "steps", "width"} <= set(added["inputs"])
    assert guarded(["workflow", "list", "--json"]) == 0
    (listed,) = told(capsys)
    assert listed["inputs"] == added["inputs"]
    kept = json.loads((settings().volume_root / "workflows" / "my_graph.json").read_text())
    assert kept["3"]["inputs"] == GRAPH["3"]["inputs"]
    assert guarded(["workflow", "add", brought(tmp_path, graph)]) == 1
    assert "there is a workflow my_graph already" in capsys.readouterr().err
    assert guarded(["workflow", "add", brought(tmp_path, graph), "--replace"]) == 0


def test_what_a_server_lacks_is_said(
    there: Comfy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    graph = json.loads(json.dumps(GRAPH))
    graph["4"]["inputs"]["ckpt_name"] = "mine.safetensors"
    graph["8"]["class_type"] = "VAEDecodeFancy"
    assert guarded(["workflow", "add", brought(tmp_path, graph)]) == 0
    said = capsys.readouterr().out
    assert "no node type 'VAEDecodeFancy'" in said
    assert "no 'mine.safetensors'" in said


def test_without_a_server_the_editors_format_needs_one(
    volume: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert guarded(["workflow", "add", brought(tmp_path, editor())]) == 1
    assert "File > Export (API)" in capsys.readouterr().err
    assert guarded(["workflow", "add", brought(tmp_path, GRAPH)]) == 0
    assert "limits and choices are not known" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["../up", "a/b", "a b", "", "x" * 81, "é"])
def test_names_never_leave_the_folder(
    there: Comfy, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
):
    before = sorted(tmp_path.rglob("*"))
    file = brought(tmp_path, GRAPH)
    assert guarded(["workflow", "add", file, "--name", name]) == 1
    assert "INVALID_FIELD_VALUE" in capsys.readouterr().err
    assert sorted(path for path in tmp_path.rglob("*") if path != Path(file)) == before


def test_a_form_that_was_edited_is_checked_and_can_be_found_anew(
    there: Comfy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = brought(tmp_path, RECORDED["image_graph"], "redraw.json")
    assert guarded(["workflow", "add", file, "--about", "Draws over it."]) == 0
    form = settings().volume_root / "workflows" / "redraw.yaml"
    written = form.read_text()
    form.write_text(written.replace("at: 3.steps", "at: 33.steps"))
    assert guarded(["workflow", "form", "redraw"]) == 1
    assert "has no node for '33.steps'" in capsys.readouterr().err
    form.write_text(written.replace("  steps:", "  passes:"))
    assert guarded(["workflow", "form", "redraw"]) == 0
    assert "passes" in capsys.readouterr().out
    assert guarded(["workflow", "form", "redraw", "--anew"]) == 0
    assert form.read_text() == written


def test_options_that_name_files_are_known_by_their_ends():
    assert media_kinds("style_image") == media_kinds("mask") == ("image",)
    assert media_kinds("talk_audio") == ("audio",)
    assert media_kinds("prompt") == ()
