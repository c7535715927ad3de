"""Files of requests as programs and people write them."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from flows.batching.reading.files import is_text, parse
from flows.batching.reading.rows import Row
from flows.batching.requests import check_requests, find_target
from safelight.errors import PipelineError

NAMES = (
    "prompt", "negative_prompt", "steps", "seed", "guidance_scale", "num_images", "model",
    "scheduler", "width", "height", "loras",
)  # fmt: skip
MADE = Path(__file__).parent / "data"
"""Saved by LibreOffice 7.4: a hidden sheet before the one that is shown, a table that begins at B2,
a formula, an empty row, a prompt merged over two rows."""


def _values(text: str | bytes, *, prompts: bool = False) -> list[Mapping[str, JsonValue]]:
    data = text if isinstance(text, bytes) else text.encode()
    return [row.values for row in parse(data, NAMES, prompts=prompts)]


ONE = {"prompt": "a red heart, large", "steps": "8"}
TABLES = {
    "commas": 'prompt,steps\n"a red heart, large",8\n',
    "semicolons": "prompt;steps\na red heart, large;8\n",
    "tabs": "prompt\tsteps\na red heart, large\t8\n",
    "declared": 'sep=;\nprompt;steps\n"a red heart, large";8\n',
    "declared by hand": "sep=|\r\nprompt|steps\r\na red heart, large|8\r\n",
    "capitals": "Prompt;STEPS\na red heart, large;8\n",
    "spaces": " prompt ; steps \na red heart, large;8\n",
    "empty columns": "prompt;steps;;\na red heart, large;8;;\n",
    "empty lines": "\n\nprompt;steps\n\na red heart, large;8\n;\n",
    "a BOM": "\ufeffprompt;steps\na red heart, large;8\n",
    "UTF-16, as spreadsheets call Unicode": "prompt\tsteps\r\na red heart, large\t8\r\n".encode(
        "utf-16"
    ),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_is_read_whatever_its_delimiter_and_header(kind: str):
    assert _values(TABLES[kind]) == [ONE]
    assert _values(TABLES[kind], prompts=True) == [ONE]  # in a .txt too


def test_words_of_a_header_stand_for_the_parameter():
    assert _values("Prompt;Guidance Scale;negative-prompt\na;7.5;b") == [
        {"prompt": "a", "guidance_scale": "7.5", "negative_prompt": "b"}
    ]


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("promt,steps\na,3\n", "CONTRACT_MISMATCH", "line 1: column 'promt' names"),
        ("promt\na\n", "CONTRACT_MISMATCH", "did you mean prompt"),
        ("sep=;\nprompt;steps\na;3;4\n", "INVALID_FIELD_VALUE", "line 3 has 3 cells, the header 2"),
        ("prompt;\na;b\n", "MISSING_REQUIRED_FIELD", "line 1: a column has no name, and line 2"),
        ("prompt;Prompt\na;b\n", "CONTRACT_MISMATCH", "column prompt is there 2 times"),
        ('{"promt": "a"}', "CONTRACT_MISMATCH", "line 1: field 'promt' names no parameter; did"),
        ('[{"prompt": "a"}, {"step": 3}]', "CONTRACT_MISMATCH", "request 2: field 'step'"),
        ("a red heart --stepps 3", "CONTRACT_MISMATCH", "line 1: option '--stepps' names"),
        ("a cat\na dog --ar 16:9", "CONTRACT_MISMATCH", "line 2: option '--ar'"),
        ("a cat --steps", "INVALID_FIELD_VALUE", "line 1: --steps has no value"),
        ("a cat --prompt b", "INVALID_FIELD_VALUE", "line 1: prompt is given twice"),
        ("a cat --n_iter 2 --batch_size 2", "INVALID_FIELD_VALUE", "num_images is given twice"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_line_and_field(text: str, code: str, words: str):
    with pytest.raises(PipelineError) as caught:
        _values(text, prompts=True)
    assert caught.value.code == code
    assert words in caught.value.problem


def test_a_list_of_objects_is_a_list_of_requests():
    rows = parse(b'[\n {"prompt": "a"},\n {"prompt": "b", "steps": 3}\n]\n', NAMES)
    assert rows == [
        Row("request 1", {"prompt": "a"}),
        Row("request 2", {"prompt": "b", "steps": 3}),
    ]


LINES = {
    "a red heart, large": {"prompt": "a red heart, large"},
    "a cat's -- long -- tail": {"prompt": "a cat's -- long -- tail"},
    "a cat --steps 20 --cfg_scale 7.5": {"prompt": "a cat", "steps": "20", "guidance_scale": "7.5"},
    '--prompt "a cat --steps 3" --negative_prompt "blurry, dark" --seed 7': {
        "prompt": "a cat --steps 3",
        "negative_prompt": "blurry, dark",
        "seed": "7",
    },
    "--prompt a cat on a mat --width 512 --height=768": {
        "prompt": "a cat on a mat",
        "width": "512",
        "height": "768",
    },
    '--prompt "a" --sampler_name "DPM++ 2M Karras" --sd_model mine': {
        "prompt": "a",
        "scheduler": "dpmpp_2m_karras",
        "model": "mine",
    },
    "(a:1.3) [b] <lora:c:0.8> --guidance-scale 2": {
        "prompt": "(a:1.3) [b] <lora:c:0.8>",
        "guidance_scale": "2",
    },
    "ein Mädchen 日本 🙂 --n_iter 2": {"prompt": "ein Mädchen 日本 🙂", "num_images": "2"},
    'she said "hello" --steps 3': {"prompt": 'she said "hello"', "steps": "3"},
}


@pytest.mark.parametrize("line", LINES)
def test_a_text_has_a_prompt_a_line(line: str):
    text = f"\n{line}\r\n\n{line}\n"
    assert _values(text, prompts=True) == [LINES[line]] * 2


def test_only_what_is_named_text_holds_prompts():
    assert is_text(Path("a/prompts.TXT"))
    assert not is_text(Path("id_rsa"))
    with pytest.raises(PipelineError, match="names no parameter"):
        _values("root:x:0:0:root:/root:/bin/bash\n")


def test_a_text_for_a_flow_without_prompt_is_a_table_or_refused():
    with pytest.raises(PipelineError, match="takes no prompt"):
        parse(b"some words\n", ("image", "scale"), prompts=True)
    assert parse(b"image\na.png\n", ("image", "scale"), prompts=True)[0].values == {
        "image": "a.png"
    }


@given(
    st.text(st.characters(exclude_characters='"\n\r-', exclude_categories=("C", "Z")), min_size=1),
    st.dictionaries(st.sampled_from(["steps", "seed", "width"]), st.integers(0, 999).map(str)),
)
def test_options_come_back_as_they_were_written(prompt: str, options: dict[str, str]):
    bare = f"words {prompt}"  # `prompt` alone before a comma would be the header of a table
    line = bare + "".join(f" --{name} {value}" for name, value in options.items())
    assert _values(line, prompts=True) == [{"prompt": bare, **options}]


PRODUCTS = [
    ("row 3", {"prompt": "a red heart, large", "steps": "8", "guidance_scale": "7.5", "seed": "7"}),
    ("row 5", {"prompt": "ein grünes Haus 日本", "steps": "8", "guidance_scale": "2", "seed": "8"}),
    ("row 6", {"prompt": "ein grünes Haus 日本", "steps": "9", "guidance_scale": "2", "seed": "9"}),
]


@pytest.mark.parametrize("kind", ["xlsx", "ods"])
def test_a_spreadsheet_is_read_as_it_is_shown(kind: str):
    rows = parse((MADE / f"products.{kind}").read_bytes(), NAMES)
    assert [(row.where, row.values) for row in rows] == PRODUCTS
    requests = check_requests(find_target("generate"), rows, {})
    assert [request.parameters["guidance_scale"] for request in requests] == [7.5, 2, 2]


@pytest.mark.parametrize(
    ("file", "sheet", "words"),
    [
        ("date.xlsx", None, "cell B3 holds a date or time (2026-11-28)"),
        ("date.ods", None, "cell B3 holds a date or time (2026-11-28)"),
        ("error.xlsx", None, "cell E3 holds the error #DIV/0!"),
        ("error.ods", None, "cell E3 holds the error #DIV/0!"),
        ("products.xls", None, "of Excel before 2007"),
        ("products.ods", "Prices", "no sheet 'Prices'; it has Products"),
        ("products.xlsx", "Notes", "row 1: column 'not for machines' names no parameter"),
    ],
)
def test_what_a_spreadsheet_cannot_say_is_refused(file: str, sheet: str | None, words: str):
    with pytest.raises(PipelineError) as caught:
        parse((MADE / file).read_bytes(), NAMES, sheet)
    assert words in caught.value.problem


def test_a_sheet_is_of_spreadsheets_alone():
    with pytest.raises(PipelineError, match="no spreadsheet"):
        parse(b"prompt\na\n", NAMES, "Products")


@pytest.mark.parametrize("file", ["products.xlsx", "products.ods"])
def test_a_damaged_spreadsheet_is_refused(file: str):
    whole = (MADE / file).read_bytes()
    for cut in range(4, len(whole), len(whole) // 12):
        for data in (whole[:cut], whole[:cut] + bytes([whole[cut] ^ 255]) + whole[cut + 1 :]):
            try:
                rows = parse(data, NAMES)
            except PipelineError:
                continue
            assert [(row.where, row.values) for row in rows] == PRODUCTS
