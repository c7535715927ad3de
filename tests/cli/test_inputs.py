"""Options of run and pipeline."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight.cli.inputs import offered, parse_options, typed
from safelight.errors import InvalidFieldValueError


def test_words_become_parameters():
    words = ["--prompt", "a cat", "--quality=pro", "--consent", "--target-fps", "60"]
    assert parse_options(words) == {
        "prompt": "a cat",
        "quality": "pro",
        "consent": True,
        "target_fps": "60",
    }


def test_objects_are_read_as_json():
    assert parse_options(["--overrides", '{"generate": {"steps": 3}}']) == {
        "overrides": {"generate": {"steps": 3}}
    }


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["prompt"], "'prompt'"),
        (["--seed", "1", "--seed", "2"], "twice"),
        (["--overrides", "{"], "not JSON"),
        (["--", "x"], "'--'"),
    ],
)
def test_what_is_no_option_is_refused(words: list[str], found: str):
    with pytest.raises(InvalidFieldValueError, match=found):
        parse_options(words)


@given(st.text(min_size=1).filter(lambda text: text[0] not in "-[{"))
def test_any_text_stays_as_it_is(text: str):
    assert parse_options(["--prompt", text]) == {"prompt": text}
    assert parse_options([f"--prompt={text}"]) == {"prompt": text}


def test_options_that_were_not_given_keep_the_flows_defaults():
    assert offered(seed=None, steps=0) == {"steps": 0}


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
