"""Foreign text is no Markdown: a parser of CommonMark reads it back as one piece of code."""

import pytest
from markdown_it import MarkdownIt

from safelight.client.markdown import cell, code, table

HOSTILE = [
    "a ![eye](http://127.0.0.1:9/eye.png) b",
    "[enter](javascript:alert(1)) <img src=//x> <svg onload=a>",
    "`` ticks ` and ``` more",
    "`edge` of `code`",
    "a | b || c <lora:rain:0.7>",
    "__grey__ *very* ~~soft~~ \\* https://example.org/x",
    "two\nlines\r\n# heading",
]


def kinds_and_text(markdown: str) -> tuple[set[str], list[str]]:
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    inner = [child for token in tokens for child in token.children or []]
    return {child.type for child in inner}, [child.content for child in inner]


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_text_is_one_piece_of_code(text: str):
    kinds, shown = kinds_and_text(code(text))
    assert kinds == {"code_inline"}
    assert shown == [text.replace("\n", "\\n").replace("\r", "\\r")]


@pytest.mark.parametrize("text", HOSTILE)
def test_in_a_table_it_stays_in_its_cell(text: str):
    kinds, shown = kinds_and_text(table(("request", "state"), [(code(text), "failed")]))
    assert kinds == {"text", "code_inline"}
    assert shown[-2:] == [text.replace("\n", "\\n").replace("\r", "\\r"), "failed"]


def test_plain_words_of_a_table_stay_plain():
    assert cell("denoised at 0.2") == "denoised at 0.2"
    assert cell("a_b *c*") == "`a_b *c*`"
