"""Templates and what they unfold to, written out by hand in data/templates.txt."""

import re
from pathlib import Path

import pytest

from safelight.errors import PipelineError
from safelight.prompts.grammar import literal
from safelight.prompts.unfolding import combinations, numbered, unfold
from safelight.prompts.wildcards import Wildcards

DATA = Path(__file__).parent / "data"
WILDCARDS = Wildcards(DATA / "wildcards")
DRAWS = 60
REFUSAL = re.compile(r" ![A-Z_]+ \d+$")
LINES = [
    line.split(" →", 1)
    for line in (DATA / "templates.txt").read_text("utf-8").splitlines()
    if not re.match(r"# (--|template|Written)", line)
]
GIVES = [
    (template, [one.removeprefix(" ") for one in said.removesuffix(" ").split(" ¦")])
    for template, said in LINES
    if not REFUSAL.match(said)
]
REFUSED = [(template, *said.split()) for template, said in LINES if REFUSAL.match(said)]


def words(template: str, seed: int = 0) -> str:
    unfolded = unfold("prompt", template, seed, WILDCARDS)
    return template if unfolded is None else unfolded.text


def every(template: str) -> list[str]:
    count = combinations("prompt", template, WILDCARDS)
    return [words(numbered(template, number)) for number in range(1, count + 1)]


def test_there_are_two_hundred():
    assert len({template for template, _ in LINES}) >= 200


@pytest.mark.parametrize(("template", "results"), GIVES, ids=[t for t, _ in GIVES])
def test_a_template_has_these_combinations(template: str, results: list[str]):
    if template.startswith("{#") and len(results) == 1:
        assert [words(template)] == results
        return
    assert every(template) == results
    drawn = {words(template, seed) for seed in range(DRAWS)}
    if "$$" not in template and "inner" not in template and "deep" not in template:
        assert drawn <= set(results)
    else:  # several are drawn in any order
        assert {"".join(sorted(each)) for each in drawn} <= {"".join(sorted(r)) for r in results}
    if len(results) <= 4 and "::" not in template:
        wanted = {"".join(sorted(result)) for result in results}
        assert {"".join(sorted(each)) for each in drawn} == wanted


@pytest.mark.parametrize(("template", "code", "at"), REFUSED, ids=[t for t, *_ in REFUSED])
def test_a_template_is_refused_with_its_place(template: str, code: str, at: str):
    with pytest.raises(PipelineError) as refused:
        words(template) if template.startswith("{#") else every(template)
    assert refused.value.code == code.removeprefix("!")
    assert at == "0" or f"at character {at}" in refused.value.problem
    if "__" in template and "ring" not in template and "broken" not in template:
        with pytest.raises(PipelineError):
            [words(template, seed) for seed in range(DRAWS)]


@pytest.mark.parametrize(("template", "results"), GIVES, ids=[t for t, _ in GIVES])
def test_what_was_written_literally_stands(template: str, results: list[str]):
    for text in (template, *results):
        assert words(literal(text)) == text
