"""Prompts that unfold, through the flows that draw by them."""

from pathlib import Path

import pytest
from PIL import Image

from flows.batch import batch
from flows.batching.requests import check_requests, find_target, listed
from flows.batching.spreading import spread_axes
from flows.generate import generate
from flows.pipeline import pipeline
from flows.running.prompts import unfolded
from flows.storyboard_builder_v1 import storyboard_builder_v1
from safelight.errors import PipelineError
from safelight.provenance.batches import load_report
from safelight.provenance.embed import read_record
from safelight.provenance.manifest import load_manifest
from safelight.provenance.replay import find_run
from safelight.store.store import current_store
from tasks.base.keeping import load_image
from tests.prefect_pool import artifacts_of

SMALL = {"width": 64, "height": 64, "steps": 1}
PROMPT = "a {2$$ and $$red|blue|green} __shapes__"
DRAWN = "a blue and red circle"
"""By seed 3."""


@pytest.fixture
def shapes(volume: Path) -> Path:
    file = volume / "wildcards" / "shapes.txt"
    file.parent.mkdir(parents=True)
    file.write_text("heart\nsquare\ncircle\n")
    return file


@pytest.mark.usefixtures("server", "shapes")
def test_record_manifest_and_metadata_tell_template_words_and_choices(volume: Path):
    result = generate(prompt=PROMPT, seed=3, **SMALL)
    manifest = load_manifest(str(result.data["flow_run_id"]))
    assert manifest.parameters["prompt"] == PROMPT
    (told,) = manifest.unfolded
    assert (told.field, told.template, told.text) == ("prompt", PROMPT, DRAWN)
    assert [each.took for each in told.choices] == [("blue", "red"), ("circle",)]
    assert manifest.stages[0].parameters["prompt"] == DRAWN
    assert result.data["prompts"] == {"prompt": DRAWN}
    path = current_store().fetch(result.results[0])
    record = read_record(path)
    assert record is not None
    assert record.unfolded == manifest.unfolded
    assert record.parameters["prompt"] == DRAWN
    with Image.open(path) as picture:
        text = picture.info["parameters"]
    assert text.startswith(DRAWN)
    assert f"Template: {PROMPT}," in text
    again = generate(prompt=PROMPT, seed=3, **SMALL)
    assert again.results == result.results
    plain = generate(prompt=DRAWN, seed=3, **SMALL)
    assert plain.results[0].sha256 != result.results[0].sha256  # its file names no template
    assert b"Template" not in current_store().read(plain.results[0])


@pytest.mark.usefixtures("server", "volume")
def test_braces_without_choices_stay():
    result = generate(prompt="a {red} heart", seed=3, **SMALL)
    manifest = load_manifest(str(result.data["flow_run_id"]))
    assert manifest.unfolded == ()
    assert manifest.stages[0].parameters["prompt"] == "a {red} heart"
    escaped = generate(prompt=r"a \{red|blue\} heart", seed=3, **SMALL)
    (stage,) = load_manifest(str(escaped.data["flow_run_id"])).stages
    assert stage.parameters["prompt"] == "a {red|blue} heart"


@pytest.mark.usefixtures("server", "volume")
def test_a_prompt_that_cannot_unfold_is_refused_before_anything_is_drawn():
    state = generate(prompt="a __shapes__", seed=3, **SMALL, return_state=True)
    assert state.is_failed()
    assert state.message.startswith("[FILE_NOT_FOUND] prompt: at character 3")
    manifest = load_manifest(str(state.state_details.flow_run_id))
    assert (manifest.stages, manifest.error.code) == ((), "FILE_NOT_FOUND")
    with pytest.raises(PipelineError, match="never closed"):
        generate.checked({"prompt": "a {red|blue"})


@pytest.mark.usefixtures("server")
def test_a_replay_draws_the_words_of_then(shapes: Path):
    result = generate(prompt=PROMPT, seed=3, **SMALL)
    run_id = str(result.data["flow_run_id"])
    assert find_run(run_id).parameters["prompt"] == PROMPT
    assert find_run(run_id).notes == ()
    shapes.write_text("star\n")
    changed = find_run(run_id)
    assert changed.parameters["prompt"] == DRAWN
    assert "unfolds to other words" in changed.notes[0]
    again = generate(**changed.parameters)
    (stage,) = load_manifest(str(again.data["flow_run_id"])).stages
    assert stage.parameters["prompt"] == DRAWN
    before, after = (load_image(made.results[0]) for made in (result, again))
    assert (before == after).all()


def test_a_manifest_of_before_has_braces_that_mean_themselves():
    from safelight.prompts.again import with_same_words

    given = {"prompt": "a {red|blue}", "call_input": {"prompt": "b {c|d}"}, "seed": 1}
    assert with_same_words(given, (), knew=False)[0] == {
        "prompt": r"a \{red|blue\}",
        "call_input": {"prompt": r"b \{c|d\}"},
        "seed": 1,
    }
    assert with_same_words(given, (), knew=True)[0] == given


@pytest.mark.usefixtures("server", "shapes")
def test_stages_of_a_pipeline_unfold_by_their_own_seed():
    draw = {"stage_type": "generate", "parameters": {**SMALL, "prompt": "{a|b|c|d} __shapes__"}}
    stages = [
        {**draw, "name": "first"},
        {**draw, "name": "second", "parameters": {**draw["parameters"], "seed": 9}},
        {**draw, "name": "third", "parameters": {**draw["parameters"], "seed": -1}},
    ]
    manifest = load_manifest(str(pipeline(stages=stages, seed=3).data["flow_run_id"]))
    words = {one.field: one.text for one in manifest.unfolded}
    wanted = [
        unfolded({"prompt": "{a|b|c|d} __shapes__", "seed": seed})[0]["prompt"] for seed in (3, 9)
    ]
    assert words == {
        "first.prompt": wanted[0],
        "second.prompt": wanted[1],
        "third.prompt": wanted[0],
    }
    drawn = {entry.name: entry.parameters for entry in manifest.stages}
    assert {name: given["prompt"] for name, given in drawn.items()} == {
        name.split(".")[0]: text for name, text in words.items()
    }
    assert drawn["third"]["seed"] == 3


@pytest.mark.usefixtures("server", "volume")
def test_a_storyboard_chooses_once_and_keeps_its_number():
    result = storyboard_builder_v1(
        prompt_template="a {red|blue} heart, shot {shot_number}",
        shot_count=2,
        seed=3,
        quality="low",
        overrides={"generate": SMALL, "storyboard": {"cell": 64}},
    )
    manifest = load_manifest(str(result.data["flow_run_id"]))
    (told,) = manifest.unfolded
    prompts = [str(s.parameters["prompt"]) for s in manifest.stages if s.stage_type == "generate"]
    for number, prompt in enumerate(prompts, 1):
        assert prompt.startswith(told.text.replace("{shot_number}", str(number)))
    record = read_record(current_store().fetch(manifest.stages[0].results[0]))
    assert record is not None
    assert record.unfolded == (told,)


@pytest.mark.slow
@pytest.mark.usefixtures("server", "shapes")
def test_a_grid_has_every_combination_as_an_axis():
    result = batch(
        flow="generate",
        grid={"prompt": [{"every": "{red|blue} __shapes__"}, "plain"], "seed": ["3..4"]},
        parameters=SMALL,
        where="here",
    )
    report = load_report(str(result.data["flow_run_id"]))
    assert report.requests == 14
    words = [[one.text for one in outcome.unfolded] for outcome in report.outcomes]
    wanted = [[f"{c} {s}"] for c in ("red", "blue") for s in ("heart", "square", "circle")]
    assert words == [each for each in [*wanted, []] for _ in range(2)]
    first = load_manifest(report.outcomes[2].flow_run_id)
    assert first.unfolded[0].template == "{red|blue} __shapes__"
    assert first.unfolded[0].combination == 2
    sheet = load_manifest(str(result.data["flow_run_id"])).stages[0]
    assert "prompt red square" in sheet.parameters["columns"]
    (table,) = [a for a in artifacts_of(str(result.data["flow_run_id"])) if a.key == "requests"]
    assert "red square" in str(table.data)
    assert "chosen" in str(table.data)


@pytest.mark.usefixtures("shapes")
def test_an_axis_has_up_to_two_thousand_cells():
    prompt = "{0|1|2|3|4|5|6|7|8|9}" * 3 + "{a|b}"
    grid = spread_axes({"prompt": [{"every": prompt}]}, 2000)
    assert len(set(map(str, grid["prompt"]))) == 2000
    with pytest.raises(PipelineError, match="6000 combinations, a grid at most 2000 cells"):
        spread_axes({"prompt": [{"every": prompt + " __shapes__"}]}, 2000)


@pytest.mark.slow
@pytest.mark.usefixtures("server", "shapes")
def test_each_request_draws_by_its_own_seed_and_a_bad_one_is_refused_first():
    requests = [{"prompt": "{a|b|c|d|e|f} __shapes__", "seed": "10..15"}]
    result = batch(flow="generate", requests=requests, parameters=SMALL, where="here")
    report = load_report(str(result.data["flow_run_id"]))
    assert [outcome.where for outcome in report.outcomes] == [
        f"request 1 seed {seed}" for seed in range(10, 16)
    ]
    wanted = [
        unfolded({"prompt": "{a|b|c|d|e|f} __shapes__", "seed": seed})[0]["prompt"]
        for seed in range(10, 16)
    ]
    assert [outcome.unfolded[0].text for outcome in report.outcomes] == wanted
    assert len(set(wanted)) > 2
    state = batch(
        flow="generate",
        requests=[{"prompt": "fine"}, {"prompt": "a __missing__"}],
        parameters=SMALL,
        where="here",
        return_state=True,
    )
    assert state.message.startswith("[FILE_NOT_FOUND] request 2: prompt: at character 3")


@pytest.mark.usefixtures("server", "volume")
def test_minus_one_draws_a_seed_that_is_kept():
    result = generate(prompt="a heart", seed=-1, **SMALL)
    manifest = load_manifest(str(result.data["flow_run_id"]))
    seed = manifest.parameters["seed"]
    assert isinstance(seed, int)
    assert seed >= 0
    assert manifest.seeds == {"generate": seed}
    assert generate(prompt="a heart", seed=seed, **SMALL).results == result.results


@pytest.mark.usefixtures("server", "volume")
def test_seeds_have_64_bits():
    result = generate(prompt="a heart", seed=2**64 - 1, num_images=2, **SMALL)
    records = [read_record(current_store().fetch(ref)) for ref in result.results]
    assert [r.parameters["seed"] for r in records if r] == [2**64 - 1, 0]
    alone = generate(prompt="a heart", seed=0, **SMALL)
    assert alone.results[0].sha256 == result.results[1].sha256
    with pytest.raises(PipelineError, match="less than or equal to 18446744073709551615"):
        generate.checked({"prompt": "x", "seed": 2**64})
    with pytest.raises(PipelineError, match="greater than or equal to -1"):
        generate.checked({"prompt": "x", "seed": -2})


@pytest.mark.parametrize(
    ("rows", "shared", "said"),
    [
        ([{"seed": "19..10"}], {}, "request 1: seed is '19..10', expected FIRST..LAST"),
        ([{"seed": f"0..{2**64}"}], {}, "at most 18446744073709551615"),
        ([{"seed": "0..999999999999"}], {}, "a batch has at most 100000 requests"),
        ([{"seed": "0..60000"}, {"seed": "0..60000"}], {}, "request 2: with its seeds"),
        ([{"seed": "1...5"}], {}, "field seed"),
        ([{"seed": "a..b"}], {}, "field seed"),
        ([{}], {"seed": "5..1"}, "parameters: seed is '5..1'"),
    ],
)
def test_rows_of_seeds_that_are_none_are_refused(rows, shared, said: str):
    given = [{"prompt": "x", **row} for row in rows]
    with pytest.raises(PipelineError, match=said):
        check_requests(find_target("generate"), listed(given), shared)


def test_a_row_of_seeds_for_all_is_one_for_each():
    rows = listed([{"prompt": "a"}, {"prompt": "b", "seed": 5}])
    found = check_requests(find_target("generate"), rows, {"seed": "1..3"})
    assert [(r.where, r.parameters["seed"]) for r in found] == [
        ("request 1 seed 1", 1),
        ("request 1 seed 2", 2),
        ("request 1 seed 3", 3),
        ("request 2", 5),
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("server", "volume")
def test_a_grid_replaces_words_and_has_cells_of_a_size_or_no_sheets():
    asked = {
        "flow": "generate",
        "grid": {"replace:red": ["red", "blue"], "steps+guidance_scale": [[1, 2], [2, 5]]},
        "parameters": {"prompt": "a red heart", "seed": 3, "width": 64, "height": 64},
        "where": "here",
    }
    result = batch(**asked, cell=64)
    sheet, _ = load_manifest(str(result.data["flow_run_id"])).stages
    assert sheet.parameters["columns"] == ["red", "blue"]
    assert sheet.parameters["rows"] == [
        "steps 1, guidance_scale 2",
        "steps 2, guidance_scale 5",
    ]
    assert sheet.parameters["cell"] == 64
    drawn = [
        load_manifest(outcome.flow_run_id).stages[0].parameters
        for outcome in load_report(str(result.data["flow_run_id"])).outcomes
    ]
    assert [(one["prompt"], one["steps"], one["guidance_scale"]) for one in drawn] == [
        ("a red heart", 1, 2.0),
        ("a red heart", 2, 5.0),
        ("a blue heart", 1, 2.0),
        ("a blue heart", 2, 5.0),
    ]
    assert batch(**asked, sheets=False).results == ()
    wide = {**asked, "grid": {"seed": ["0..99"], "steps": [*range(1, 21)]}}
    state = batch(**wide, cell=1024, return_state=True)
    assert "set cell to at most 244" in state.message


@pytest.mark.usefixtures("server", "volume")
def test_a_sheet_has_a_title_all_pictures_of_a_cell_and_a_form():
    asked = {
        "flow": "generate",
        "grid": {"seed": [1, 2, 3]},
        "parameters": {"prompt": "a red heart", "num_images": 3, **SMALL},
        "where": "here",
    }
    result = batch(**asked, title="hearts", legends=False, sheet_form="webp", cell=64)
    grid, everything = result.results
    assert grid.media_type == everything.media_type == "image/webp"
    sheet, _ = load_manifest(str(result.data["flow_run_id"])).stages
    assert sheet.parameters["title"] == "hearts"
    assert sheet.parameters["columns"] == ["", "", ""]
    assert sheet.parameters["cells"] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    drawn = [one.results for one in load_report(str(result.data["flow_run_id"])).outcomes]
    assert sheet.sources == tuple(ref.sha256 for refs in drawn for ref in refs)
    wide = {**asked, "grid": {"seed": ["0..39"], "steps": [1, 2]}}
    state = batch(**wide, sheet_form="webp", cell=1024, return_state=True)
    assert "set cell to at most 387" in state.message
