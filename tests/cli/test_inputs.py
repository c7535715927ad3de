"""Options of run and pipeline."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight.cli.inputs import offered, parse_options
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
