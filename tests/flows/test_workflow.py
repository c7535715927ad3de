"""Workflows of ComfyUI as flows: form, seed, cache, replays, other states of a file."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.batching.requests import check_requests, find_target, listed
from safelight.client.contracts import contract
from safelight.engines.graphs import read_graph
from safelight.errors import PipelineError
from safelight.provenance.embed import read_record
from safelight.provenance.manifest import load_manifest
from safelight.provenance.replay import find_run
from safelight.settings import settings
from safelight.store.store import current_store
from safelight.workflows.files import keep
from safelight.workflows.finding import find_form
from safelight.workflows.form import form_text
from tests.engines.comfy.comfy_server import GRAPH, RECORDED, Comfy, named_comfy


@pytest.fixture
def there(volume: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Comfy]:
    with named_comfy(monkeypatch) as held:
        yield held


def add(name: str, graph: dict[str, Any], form: str | None = None) -> None:
    read = read_graph(json.dumps(graph), name)
    found = form_text(find_form(read, RECORDED["object_info"])) if form is None else form.encode()
    keep(name, json.dumps(graph).encode(), found, replace=True)


def sent(there: Comfy) -> dict[str, Any]:
    """The last prompt that the server got."""
    return there.history[there.submitted[-1]]["prompt"][2]


def test_the_form_has_limits_choices_and_defaults(volume: Path):
    add("redraw", RECORDED["image_graph"])
    shown = contract("workflow_redraw").described
    assert next(iter(shown)) == "image"
    assert shown["image"]["required"]
    assert (shown["steps"]["minimum"], shown["steps"]["maximum"]) == (1, 10000)
    assert shown["steps"]["default"] == 3
    assert "euler" in shown["sampler_name"]["enum"]
    assert shown["prompt"]["default"] == "a lighthouse"
    with pytest.raises(PipelineError, match=r"--steps is 0") as refused:
        contract("workflow_redraw").check({"image": "a.png", "steps": 0})
    assert refused.value.code == "INVALID_FIELD_VALUE"
    with pytest.raises(PipelineError, match="no flow 'workflow_other'"):
        contract("workflow_other")


@pytest.mark.usefixtures("server")
def test_what_the_form_hides_keeps_the_value_that_it_says(there: Comfy):
    add(
        "draw",
        GRAPH,
        "inputs:\n  words: {at: 6.text, kind: text}\n  steps: {at: 3.steps, "
        "kind: integer, shown: false, default: 9}\n",
    )
    known = contract("workflow_draw")
    assert list(known.described) == ["words", "workflow"]
    flow: Any = known.flow
    flow(words="a tower")
    assert sent(there)["3"]["inputs"]["steps"] == 9
    assert sent(there)["6"]["inputs"]["text"] == "a tower"
    with pytest.raises(PipelineError) as refused:
        flow.checked({"words": "a", "steps": 3})
    assert refused.value.code == "CONTRACT_MISMATCH"


@pytest.mark.usefixtures("server")
def test_a_run_is_recorded_cached_and_made_again_as_it_was(there: Comfy):
    add("draw", GRAPH)
    flow: Any = contract("workflow_draw").flow
    first = flow(prompt="a {tower|tower}", steps=4)
    manifest = load_manifest(str(first.data["manifest"]))
    drawn = manifest.parameters["seed"]
    asked = sent(there)
    assert asked["3"]["inputs"]["seed"] == drawn
    assert asked["3"]["inputs"]["steps"] == 4
    assert asked["6"]["inputs"]["text"] == "a tower"
    assert [(each.name, each.engine.engine_id) for each in manifest.stages] == [
        ("comfy", "local_comfy")
    ]
    again = flow(prompt="a tower", steps=4, seed=drawn)
    assert len(there.submitted) == 1  # same graph, same inputs, same models
    assert again.artifacts[-1].sha256 == first.artifacts[-1].sha256

    changed = json.loads(json.dumps(GRAPH))
    changed["5"]["inputs"]["width"] = 128
    add("draw", changed)
    now: Any = contract("workflow_draw").flow
    now(prompt="a tower", steps=4, seed=drawn)
    assert sent(there)["5"]["inputs"]["width"] == 128
    replayed = find_run(str(first.data["manifest"]))
    as_then = now(**replayed.parameters)
    assert len(there.submitted) == 2  # the state of the file that the first run had is cached
    assert as_then.artifacts[-1].sha256 == first.artifacts[-1].sha256


@pytest.mark.usefixtures("server")
def test_files_go_where_their_names_say(there: Comfy, photo: Any):
    from PIL import Image

    uploads = settings().volume_root / "uploads"
    uploads.mkdir(parents=True)
    for number in (1, 2):
        Image.fromarray(photo[: 16 * number, :24]).save(uploads / f"{number}.png")
    two = json.loads(json.dumps(RECORDED["image_graph"]))
    two["12"] = {**two["10"], "_meta": {"title": "Style"}}
    add("styled", two)
    flow: Any = contract("workflow_styled").flow
    made = flow(image="uploads/1.png", style_image="uploads/2.png", seed=1)
    prompt = sent(there)
    assert prompt["10"]["inputs"]["image"] != prompt["12"]["inputs"]["image"]
    assert {prompt[at]["inputs"]["image"] for at in ("10", "12")} == set(there.uploads)
    manifest = load_manifest(str(made.data["manifest"]))
    assert manifest.inputs.keys() == {"image", "style_image"}
    record = read_record(current_store().fetch(made.artifacts[-1]))
    assert record is not None
    assert set(record.sources) == {each.sha256 for each in manifest.inputs.values()}


def test_batches_run_workflows_and_tell_states_of_a_file_apart(volume: Path):
    add("draw", GRAPH)
    target = find_target("workflow_draw")
    rows = listed([{"prompt": "a"}, {"prompt": "b"}])
    before = [each.digest for each in check_requests(target, rows, {})]
    assert [each.digest for each in check_requests(target, rows, {})] == before
    add("draw", {**GRAPH, "9": {**GRAPH["9"], "inputs": {**GRAPH["9"]["inputs"], "a": 1}}})
    after = [each.digest for each in check_requests(find_target("workflow_draw"), rows, {})]
    assert not set(before) & set(after)


BROKEN = {
    "no json": ("{", None, "INVALID_FIELD_VALUE"),
    "not a number": (json.dumps(GRAPH).replace("7.0", "NaN"), None, "INVALID_FIELD_VALUE"),
    "half a character": (
        json.dumps(GRAPH).replace("lighthouse", "\\ud800"),
        None,
        "INVALID_FIELD_VALUE",
    ),
    "a form of elsewhere": (
        json.dumps(GRAPH),
        "inputs: {a: {at: 99.b, kind: text}}",
        "CONTRACT_MISMATCH",
    ),
    "a linked input": (
        json.dumps(GRAPH),
        "inputs: {a: {at: 3.model, kind: text}}",
        "MISSING_REQUIRED_FIELD",
    ),
    "a large form": (json.dumps(GRAPH), "#" * 300_000, "INVALID_FIELD_VALUE"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_files_of_strangers_are_refused_with_a_code(volume: Path, case: str):
    text, form, code = BROKEN[case]
    folder = volume / "workflows"
    folder.mkdir(parents=True)
    (folder / "odd.json").write_text(text)
    if form is not None:
        (folder / "odd.yaml").write_text(form)
    with pytest.raises(PipelineError) as refused:
        contract("workflow_odd")
    assert refused.value.code == code


def test_a_form_that_leads_elsewhere_is_refused(volume: Path, tmp_path: Path):
    add("draw", GRAPH)
    (tmp_path / "secret.yaml").write_text("about: secret")
    form = volume / "workflows" / "draw.yaml"
    form.unlink()
    form.symlink_to(tmp_path / "secret.yaml")
    with pytest.raises(PipelineError) as refused:
        contract("workflow_draw")
    assert refused.value.code == "PERMISSION_DENIED"
