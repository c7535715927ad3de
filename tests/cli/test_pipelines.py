"""Pipeline files: read as JSON or YAML, checked with the lines of what is wrong, drawn."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight.cli.edge import guarded
from safelight.cli.pipeline_files import line_of, read_pipeline
from safelight.errors import InvalidFieldValueError

YAML = """\
# two looks of one picture
stages:
  - stage_type: grade
    name: warm
    parameters:
      colour: warm
      grain: 0.1
  - {stage_type: grade, name: on, reads: [image]}
  - stage_type: blend
    name: both
    reads: [warm, on]
parameters:
  seed: 7
"""


def file(tmp_path: Path, text: str, name: str = "looks.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_yaml_says_the_same_as_json(tmp_path: Path):
    found = read_pipeline(file(tmp_path, YAML))
    assert found["stages"][1] == {"stage_type": "grade", "name": "on", "reads": ["image"]}
    assert found == read_pipeline(file(tmp_path, json.dumps(found), "looks.json"))


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x",
        "a: 1\na: 2",
        "a: !!python/object/apply:os.getcwd []",
        "a: .nan",
        "a: {1: 2}\n? [b]\n: c",
        "a: [",
        "- stages",
        "<<: {a: 1}",
        "[" * 4000,
    ],
)
def test_what_json_could_not_say_is_refused(tmp_path: Path, text: str):
    with pytest.raises(InvalidFieldValueError):
        read_pipeline(file(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("looks.yaml", "stages:\n  - stage_type: grade\n   name: b\n", 3),
        ("looks.json", '{"stages": [\n {"stage_type": "grade",}\n]}', 2),
    ],
)
def test_where_a_file_breaks_its_form_is_told(tmp_path: Path, name: str, text: str, line: int):
    with pytest.raises(InvalidFieldValueError, match=rf"{name}:{line} is not .* at character \d+"):
        read_pipeline(file(tmp_path, text, name))


def test_dates_and_switches_are_words(tmp_path: Path):
    found = read_pipeline(file(tmp_path, "a: 2026-11-27\nb: yes\nc: true\nd: 0.5\ne: ~"))
    assert found == {"a": "2026-11-27", "b": "yes", "c": True, "d": 0.5, "e": None}


objects = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=4),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**6), 10**6)
        | st.text("xyz 0:-#\t", max_size=6),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    min_size=1,
    max_size=4,
)


@given(objects, st.integers(0, 4))
def test_the_line_of_every_value_is_found(content: dict[str, object], indent: int):
    text = json.dumps(content, indent=indent or None)
    for name in content:
        line = line_of(text.encode(), (name,))
        assert line is not None
        assert f'"{name}"' in text.splitlines()[line - 1]
        assert line_of(text.encode(), (name, "nowhere")) is not None


def test_everything_that_is_wrong_is_told_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    wrong = YAML.replace("grain: 0.1", "grain: 7\n      grian: 1").replace("blend", "blened")
    path = file(tmp_path, wrong)
    assert guarded(["pipeline", "check", str(path), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [(one["line"], one["field"]) for one in told] == [
        (7, "stages.0.parameters.grain"),
        (8, "stages.0.parameters.grian"),
        (10, "stages.2.stage_type"),
    ]
    assert {one["code"] for one in told} == {"INVALID_FIELD_VALUE", "CONTRACT_MISMATCH"}
    assert guarded(["pipeline", "check", str(path)]) == 1
    assert capsys.readouterr().out.splitlines()[0].startswith(f"{path}:7: INVALID_FIELD_VALUE ")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (YAML.replace("[warm, on]", "[warm, off]"), 11),
        (YAML.replace("name: both", "name: warm"), 10),
        (YAML.replace("seed: 7", "sed: 7"), 13),
        (YAML.replace("name: both", "nmae: both"), 9),
    ],
)
def test_what_stages_read_is_checked(
    tmp_path: Path, text: str, line: int, capsys: pytest.CaptureFixture[str]
):
    assert guarded(["pipeline", "check", str(file(tmp_path, text)), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["line"] == line


def test_a_right_file_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = file(tmp_path, YAML)
    assert guarded(["pipeline", "check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: all right\n"
    assert guarded(["pipeline", "show", str(path)]) == 0
    drawn = capsys.readouterr().out
    assert drawn.splitlines()[0] == "flowchart LR"
    assert 'n_both["both: blend"]' in drawn
    assert "n_warm --> n_both" in drawn
    assert "n_image --> n_on" in drawn


def test_a_parameter_of_the_call_may_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = file(tmp_path, "stages: [{stage_type: generate, name: drawn}]")
    assert guarded(["pipeline", "check", str(path)]) == 1
    assert "MISSING_REQUIRED_FIELD" in capsys.readouterr().out
    assert guarded(["pipeline", "check", str(path), "--prompt", "a fox"]) == 0
