"""Options of run, pipeline and batch: parsed, and checked against what the flow takes."""

from pkgutil import iter_modules

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flows
from flows.pipelines.checking import check_pipeline
from presets.base.catalog import check_overrides
from safelight.cli.inputs import MEDIA_OPTIONS, offered, parse_options, typed
from safelight.cli.options import pipeline_options
from safelight.client.contracts import contract, described, refuse_unknown
from safelight.errors import (
    ContractMismatchError,
    InvalidFieldValueError,
    MissingRequiredFieldError,
    PipelineError,
)

PORTRAIT = contract("cinematic_portrait_v1")
TWO = {
    "stages": [
        {"stage_type": "grade", "name": "warm-one", "parameters": {"colour": "warm"}},
        {"stage_type": "grade", "name": "cold"},
    ]
}


def test_every_option_that_names_a_file_is_sent_there_first():
    named: set[str] = set()
    for module in iter_modules(flows.__path__):
        try:
            known = contract(module.name).described
        except ContractMismatchError:  # it holds no flow
            continue
        named |= {name for name, part in known.items() if "under the volume root, or" in str(part)}
    assert named == MEDIA_OPTIONS.keys()


def test_words_become_parameters():
    words = ["--prompt", "a cat", "--quality=pro", "--consent-given", "--target-fps", "60"]
    assert parse_options(words) == {
        "prompt": "a cat",
        "quality": "pro",
        "consent_given": True,
        "target_fps": "60",
    }


def test_what_takes_objects_is_read_as_json():
    assert parse_options(["--overrides", '{"generate": {"steps": 3}}'], PORTRAIT.described) == {
        "overrides": {"generate": {"steps": 3}}
    }


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["prompt"], "'prompt'"),
        (["--seed", "1", "--seed", "2"], "twice"),
        (["--overrides", "{"], "not JSON"),
        (["--overrides", '{"generate": {"steps": NaN}}'], "no number"),
        (["--overrides", '{"generate": {}, "generate": {}}'], "generate is given twice"),
        (["--overrides", "[" * 6000], "not JSON"),
        (["--overrides", "7" * 6000], "not JSON"),
        (["--", "x"], "'--'"),
    ],
)
def test_what_is_no_option_is_refused(words: list[str], found: str):
    with pytest.raises(InvalidFieldValueError, match=found):
        parse_options(words, PORTRAIT.described)


def test_an_option_without_its_value_is_refused_but_a_switch_needs_none():
    with pytest.raises(MissingRequiredFieldError, match="--prompt has no value"):
        parse_options(["--prompt", "--consent-given"], PORTRAIT.described)
    assert parse_options(["--consent-given"], PORTRAIT.described) == {"consent_given": True}


@given(st.text(min_size=1).filter(lambda text: text[:2] != "--"))
def test_any_text_stays_as_it_is(text: str):
    for words in (["--prompt", text], [f"--prompt={text}"]):
        assert parse_options(words) == {"prompt": text}
        assert parse_options(words, PORTRAIT.described) == {"prompt": text}


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({}, MissingRequiredFieldError, "cinematic_portrait_v1 needs prompt"),
        ({"pormpt": "a"}, ContractMismatchError, "no option --pormpt; did you mean --prompt"),
        ({"prompt": "a", "sed": "1"}, ContractMismatchError, "did you mean --seed"),
        ({"prompt": "a", "zzz": "1"}, ContractMismatchError, "no option --zzz"),
        ({"prompt": "a", "quality": "great"}, InvalidFieldValueError, "--quality is 'great'"),
        ({"prompt": "a", "seed": "-3"}, InvalidFieldValueError, "--seed is '-3'"),
        ({"prompt": "a", "seed": "9" * 5000}, InvalidFieldValueError, "--seed is"),
        ({"prompt": "", "seed": "3"}, InvalidFieldValueError, "--prompt is ''"),
    ],
)
def test_options_are_checked_without_a_server(
    given: dict[str, str], kind: type[PipelineError], said: str
):
    with pytest.raises(kind, match=said):
        PORTRAIT.check(dict(given))


def test_what_fits_passes_and_a_part_may_lack_the_rest():
    PORTRAIT.check({"prompt": "[a] {b}", "seed": "12", "consent_given": True, "quality": "low"})
    PORTRAIT.check({"seed": "12"}, partly=True)
    with pytest.raises(InvalidFieldValueError, match="--seed"):
        PORTRAIT.check({"seed": "x"}, partly=True)


def test_only_flows_of_the_checkout_have_a_contract():
    for name in ("nothing", "../etc", "running", "inputs"):
        with pytest.raises(ContractMismatchError):
            contract(name)


def test_overrides_are_checked_at_the_quality_that_will_run():
    check_overrides("color_grade_film_grain_v1", None, {"grade": {"grain": 0.1}})
    with pytest.raises(ContractMismatchError, match="step 'draw'"):
        check_overrides("color_grade_film_grain_v1", "low", {"draw": {}})
    with pytest.raises(InvalidFieldValueError, match="steps"):
        check_overrides("cinematic_portrait_v1", "pro", {"generate": {"steps": 0}})


def test_overrides_are_checked_with_the_steps_that_switches_leave():
    faces, larger = {"detail": {"strength": 0.3}}, {"upscale": {"upscale_factor": 4}}
    with pytest.raises(ContractMismatchError, match="step 'detail'"):
        check_overrides("photoreal_portrait_v1", "low", faces)
    check_overrides("photoreal_portrait_v1", "low", faces, {"use_facedetailer": True})
    check_overrides("photoreal_portrait_v1", "low", larger, {"use_upscale": True})
    with pytest.raises(ContractMismatchError, match="step 'upscale'"):
        check_overrides("photoreal_portrait_v1", "pro", larger, {"use_upscale": False})
    check_overrides("photoreal_portrait_v1", "pro", larger, {"use_upscale": None})


@pytest.mark.parametrize(
    "words",
    [
        ["--warm-one.colour", "cool", "--colour", "cinematic"],
        ["--colour", "cinematic", "--warm-one.colour", "cool"],
    ],
)
def test_the_more_specific_option_wins_in_any_order_and_names_may_have_dashes(words: list[str]):
    from flows.pipelines.described import Pipeline
    from flows.pipelines.plan import plan_pipeline

    options = pipeline_options(TWO)
    call = parse_options([*words, "--image", "x.png"], options)
    refuse_unknown(call, options, "a pipeline")
    check_pipeline(TWO, call)
    planned = plan_pipeline(Pipeline.model_validate(TWO), call).stages
    colours = {stage.name: stage.params.model_dump()["colour"] for stage in planned}
    assert colours == {"warm-one": "cool", "cold": "cinematic"}


def test_a_field_that_no_stage_has_is_refused_with_the_one_that_is_meant():
    options = pipeline_options(TWO)
    with pytest.raises(ContractMismatchError, match=r"did you mean --warm-one\.colour"):
        refuse_unknown({"warm-one.colr": "x"}, options, "a pipeline")


def test_options_that_were_not_given_keep_the_flows_defaults():
    assert offered(seed=None, steps=0) == {"steps": 0}


def test_references_in_a_schema_are_resolved():
    schema = {
        "properties": {"a": {"$ref": "#/$defs/A"}, "b": {"anyOf": [{"$ref": "#/$defs/A"}]}},
        "$defs": {"A": {"type": "string", "enum": ["x"]}},
        "required": ["a"],
    }
    found = described(schema)
    assert found["a"]["enum"] == ["x"]
    assert found["a"]["required"] is True
    assert found["b"]["anyOf"][0]["type"] == "string"


def test_text_becomes_what_the_schema_takes():
    schema = {
        "properties": {
            "seed": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "grain": {"type": "number"},
            "again": {"type": "boolean"},
            "prompt": {"type": "string"},
            "quality": {"enum": ["low"], "type": "string"},
            "model": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        }
    }
    typed_in = {"seed": "7", "grain": "0.5", "again": "true", "prompt": "7", "model": "7"}
    wanted = {"seed": 7, "grain": 0.5, "again": True, "prompt": "7", "model": "7"}
    assert typed(typed_in, schema) == wanted
    left = {"seed": "seven", "quality": "low", "unknown": "7", "grain": 1}
    assert typed(left, schema) == left


def test_a_choice_of_numbers_can_be_typed():
    interpolate = contract("interpolate")
    typed_in = parse_options(["--target-fps", "50"], interpolate.described)
    interpolate.check({"video": "a.mp4", **typed_in})
    with pytest.raises(InvalidFieldValueError, match="--target-fps is 31"):
        interpolate.check(
            {"video": "a.mp4", **parse_options(["--target-fps=31"], interpolate.described)}
        )
