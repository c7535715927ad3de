"""Axes of a grid that are more than one parameter, and how they are typed."""

import pytest

from flows.batching.axes import axis_label
from flows.batching.laying_out import sheet_axes
from flows.batching.requests import grid_rows
from flows.batching.spreading import with_seed_axis
from safelight.cli.grids import read_grid
from safelight.client.contracts import contract
from safelight.errors import PipelineError

SHARED = {"prompt": "a red cat on a red mat", "negative_prompt": "red eyes"}
GENERATE = contract("generate")


def values(grid: dict[str, list[object]], shared: dict[str, object] = SHARED) -> list[object]:
    return [row.values for row in grid_rows(grid, shared)]


def test_words_are_replaced_everywhere_in_the_order_of_the_values():
    assert values({"replace": ["red", "blue", "green"]}) == [
        {"prompt": f"a {c} cat on a {c} mat", "negative_prompt": f"{c} eyes"}
        for c in ("red", "blue", "green")
    ]
    assert values({"replace:cat": ["dog", "bird"]}) == [
        {"prompt": "a red dog on a red mat"},
        {"prompt": "a red bird on a red mat"},
    ]


def test_several_words_are_replaced_one_after_the_other():
    rows = values({"replace:cat": ["red dog", "cat"], "replace:red": ["blue"]})
    assert [row["prompt"] for row in rows] == [
        "a blue blue dog on a blue mat",
        "a blue cat on a blue mat",
    ]


def test_words_are_replaced_in_a_prompt_that_is_an_axis_itself():
    rows = values({"replace:red": ["blue"], "prompt": ["a red dog", "red"]})
    assert [row["prompt"] for row in rows] == ["a blue dog", "blue"]


def test_parameters_move_together():
    assert values({"steps+guidance_scale": [[10, 5], [20, 7]]}, {}) == [
        {"steps": 10, "guidance_scale": 5},
        {"steps": 20, "guidance_scale": 7},
    ]


def test_weights_of_loras_are_beside_those_of_all():
    shared = {"loras": [{"name": "a", "weight": 1}]}
    assert values({"lora:x": [0.2], "lora:y": [0.8]}, shared) == [
        {
            "loras": [
                {"name": "a", "weight": 1},
                {"name": "x", "weight": 0.2},
                {"name": "y", "weight": 0.8},
            ]
        }
    ]


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({"replace": ["Red", "blue"]}, "cell 1: 'Red' is to be replaced, and no prompt has it"),
        ({"replace:": [1, 2]}, "expected two texts"),
        ({"replace:red": [5]}, "cell 1: 'red' is to be replaced by 5"),
        ({"steps+width": [[1, 2], [3]]}, r"cell 2: steps\+width is \[3\], expected a list of 2"),
        ({"steps+width": [5]}, "expected a list of 2 values"),
    ],
)
def test_an_axis_that_says_nothing_is_refused(grid, said: str):
    with pytest.raises(PipelineError, match=said):
        grid_rows(grid, SHARED)


def test_labels_say_what_changes():
    assert axis_label("replace:red", "blue", "blue") == "blue"
    assert axis_label("lora:x", 0.5, "0.5") == "x 0.5"
    assert axis_label("steps+width", [1, 2], "[1, 2]") == "steps 1, width 2"
    assert axis_label("steps", 5, "5") == "steps 5"
    assert axis_label("prompt", "{#2}a {b|c}", "{#2}a {b|c}") == "prompt a c"


def test_a_row_of_seeds_for_all_cells_is_an_axis():
    assert with_seed_axis({"steps": [4, 8]}, {"seed": "3..5", "width": 64}) == (
        {"steps": [4, 8], "seed": ["3..5"]},
        {"width": 64},
    )
    assert with_seed_axis({"steps": [4]}, {"seed": 3}) == ({"steps": [4]}, {"seed": 3})
    for axis in ({"seed": [1, 2]}, {"steps+seed": [[4, 1], [8, 2]]}):
        assert with_seed_axis(axis, {"seed": "3..5"}) == (axis, {})


@pytest.mark.usefixtures("volume")
def test_a_row_of_seeds_is_typed_for_all_cells():
    given = {"prompt": "a red cat", "seed": "10..12"}
    found = read_grid(GENERATE, given, {"x": "steps=4,8", "y": None, "z": None})
    cells = [(cell.parameters["steps"], cell.parameters["seed"]) for cell in found.cells.requests]
    assert cells == [(steps, seed) for steps in (4, 8) for seed in (10, 11, 12)]
    assert found.shared == {"prompt": "a red cat"}
    assert sheet_axes({"steps": [4, 8], "seed": [10, 11, 12]}, "steps", None, None).down == "seed"


def typed(**axes: str) -> list[dict[str, object]]:
    found = read_grid(GENERATE, {"prompt": "a red cat"}, {"x": None, "y": None, "z": None, **axes})
    return [dict(cell.parameters) for cell in found.cells.requests]


@pytest.mark.usefixtures("volume")
def test_axes_are_typed():
    assert [
        (c["steps"], c["prompt"]) for c in typed(x="steps=10, 20", y="replace:red=red,blue")
    ] == [
        (10, "a red cat"),
        (10, "a blue cat"),
        (20, "a red cat"),
        (20, "a blue cat"),
    ]
    assert [c["seed"] for c in typed(x="seed=10..12,40")] == [10, 11, 12, 40]
    assert [c["prompt"] for c in typed(x='prompt="a, b",c')] == ["a, b", "c"]
    assert [c["prompt"] for c in typed(x="prompt=every:{a|b} c")] == ["{#1}{a|b} c", "{#2}{a|b} c"]
    assert [(c["steps"], c["guidance_scale"]) for c in typed(x="steps+guidance-scale=4+2,8+5")] == [
        (4, 2.0),
        (8, 5.0),
    ]
    assert typed(x="lora:ink=0.5")[0]["loras"] == [{"name": "ink", "weight": 0.5}]


@pytest.mark.usefixtures("volume")
@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"x": "steps"}, "--x is 'steps', expected NAME=VALUE,VALUE"),
        ({"x": "steps="}, "expected NAME=VALUE"),
        ({"x": "=1"}, "expected NAME=VALUE"),
        ({"x": "stepz=1"}, "did you mean --steps"),
        ({"x": "steps=1", "y": "steps=2"}, "--y names steps"),
        ({"x": "steps=many"}, "cell 1: generate: field steps"),
        ({"x": "steps=1,500"}, "cell 2: generate: field steps"),
        ({"x": "steps+width=1"}, "expected a list of 2 values"),
        ({"x": "lora:ink=strong"}, "field loras"),
        ({"x": "seed=0..500000"}, "at most 100000"),
        ({"x": "prompt=every:{a|b"}, "never closed"),
    ],
)
def test_axes_that_are_none_are_refused_before_anything_runs(axes: dict[str, str], said: str):
    with pytest.raises(PipelineError, match=said):
        typed(**axes)


def test_a_character_is_an_axis_of_what_draws_characters():
    assert [cell["character"] for cell in typed(x="character=ann,bob")] == ["ann", "bob"]
