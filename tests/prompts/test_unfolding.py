"""The same seed draws the same words everywhere, within limits."""

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from safelight.errors import PipelineError
from safelight.prompts.unfolded import Unfolded
from safelight.prompts.unfolding import combinations, numbered, unfold
from safelight.prompts.wildcards import Wildcards

FOLDER = Path(__file__).parent / "data" / "wildcards"
WILDCARDS = Wildcards(FOLDER)
SEEDS = (0, 7, 2**32, 2**64 - 1)
FIXED = [
    (
        "prompt",
        "a {red|green|blue} heart",
        ["a blue heart", "a red heart", "a red heart", "a red heart"],
    ),
    ("prompt", "{2$$ and $$a|b|c|d}", ["b and d", "c and d", "c and b", "b and d"]),
    ("prompt", "{1-3$$a|b|c|d|e}", ["d, b, c", "b", "b", "c"]),
    ("prompt", "__colors*__ {cat|dog}", ["green cat", "red cat", "blue dog", "blue dog"]),
    (
        "prompt",
        "{2$$__colors__}, __people/look__",
        ["blue, red, man", "red, green, young woman", "red, blue, man", "red, blue, red hair"],
    ),
    (
        "prompt",
        "__years__ __artists/*__",
        [
            "1.10 Eero Järnefelt",
            "yes Akseli Gallen-Kallela",
            "yes Akseli Gallen-Kallela",
            "1.10 Eero Järnefelt",
        ],
    ),
    ("negative_prompt", "{3::often|1::seldom}", ["often", "seldom", "often", "often"]),
    (
        "negative_prompt",
        "a {red|green|blue} heart",
        ["a green heart", "a red heart", "a red heart", "a red heart"],
    ),
]
"""These words for ever: whoever changes one changes what other people's seeds mean."""


def drawn(prompt: str, seed: int = 0, field: str = "prompt") -> Unfolded:
    unfolded = unfold(field, prompt, seed, WILDCARDS)
    assert unfolded is not None
    return unfolded


@pytest.mark.parametrize(
    ("field", "template", "words"), FIXED, ids=[f"{f} {t}" for f, t, _ in FIXED]
)
def test_a_seed_draws_these_words(field: str, template: str, words: list[str]):
    assert [drawn(template, seed, field).text for seed in SEEDS] == words


def test_a_draw_is_sha256_of_revision_seed_field_and_count():
    options = ["a", "b", "c", "d", "e"]
    for seed in range(50):
        digest = hashlib.sha256(f"safelight prompt 1\n{seed}\nprompt\n1".encode()).digest()
        wanted = options[int.from_bytes(digest[:8], "big") % len(options)]
        assert drawn("{a|b|c|d|e}", seed).text == wanted


def test_pythons_own_hash_and_chance_take_no_part():
    program = (
        "import random, sys; random.seed(); from pathlib import Path;"
        "from safelight.prompts.unfolding import unfold;"
        "from safelight.prompts.wildcards import Wildcards;"
        "w = Wildcards(Path(sys.argv[1]));"
        "print([unfold('prompt', '{2$$__colors*__} {a|b|c|d}', s, w).text for s in range(20)])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program, str(FOLDER)],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert said == {
        f"{[drawn('{2$$__colors*__} {a|b|c|d}', s).text for s in range(20)]}\n".encode()
    }


def test_weights_are_what_they_say():
    found = Counter(drawn("{3::a|b|0.5::c}", seed).text for seed in range(9000))
    assert abs(found["a"] - 6000) < 150
    assert abs(found["b"] - 2000) < 150
    assert abs(found["c"] - 1000) < 150


def test_prompt_and_negative_prompt_draw_apart():
    pairs = {
        (drawn("{a|b}", seed).text, drawn("{a|b}", seed, "negative_prompt").text)
        for seed in range(40)
    }
    assert len(pairs) == 4


def test_the_choices_are_told():
    unfolded = drawn("a __people/look__, {2$$x|y|z}", 3)
    (look, *inside, several) = unfolded.choices
    assert (look.source, look.at, look.within) == ("__people/look__", 3, "")
    assert look.took[0] in unfolded.text
    assert all(each.within.startswith("people/") for each in inside)
    assert (several.source, len(several.took)) == ("{2$$x|y|z}", 2)
    assert unfolded.text == f"a {look.took[0]}, {', '.join(several.took)}"
    assert unfolded.template == "a __people/look__, {2$$x|y|z}"


def test_two_thousand_combinations_each_once():
    prompt = "{a|b|c|d|e|f|g|h|i|j} {0|1|2|3|4|5|6|7|8|9} {2$$v|w|x|y|z} {k|l}"
    assert combinations("prompt", prompt, WILDCARDS) == 2000
    words = {drawn(numbered(prompt, number)).text for number in range(1, 2001)}
    assert len(words) == 2000
    assert drawn(numbered(prompt, 2000)).combination == 2000


def test_many_combinations_are_counted_without_making_them():
    prompt = "{a|b}" * 300
    assert combinations("prompt", prompt, WILDCARDS) == 2**300
    words = drawn(f"{{#{10**17}}}{prompt}").text
    assert int(words.replace("a", "0").replace("b", "1"), 2) == 10**17 - 1


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("{" * 25 + "a|b" + "}" * 25, "more than 24 deep"),
        ("{a|b}" * 1001, "more than 1000 choices"),
        ("{" + "|".join("x" * 1001) + "}", "1001 options"),
        ("{a|b" * 500, "more than 24 deep"),
    ],
)
def test_what_would_never_end_is_refused(prompt: str, said: str):
    with pytest.raises(PipelineError, match=said):
        drawn(prompt)


def test_a_wildcard_that_doubles_itself_is_refused(tmp_path: Path):
    for level in range(30):
        (tmp_path / f"w{level}.txt").write_text(f"__w{level + 1}__ __w{level + 1}__\n")
    (tmp_path / "w30.txt").write_text("x\n")
    with pytest.raises(PipelineError, match="too deep"):
        unfold("prompt", "__w0__", 0, Wildcards(tmp_path))
    with pytest.raises(PipelineError, match="more than 1000 choices"):
        unfold("prompt", "__w16__", 0, Wildcards(tmp_path))


def test_a_result_that_is_too_long_is_refused(tmp_path: Path):
    (tmp_path / "long.txt").write_text("x" * 8000 + "\n")
    with pytest.raises(PipelineError, match="more than 100000 characters"):
        unfold("prompt", "__long__ " * 20, 0, Wildcards(tmp_path))
