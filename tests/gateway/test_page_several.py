"""Several runs from one form: axes and tables become a batch, what is wrong stands beside them."""

import pytest

from flows.batching.reading.files import parse
from safelight.client.contracts import contract
from safelight.gateway.page.forms import form_of
from safelight.gateway.page.reading import read
from safelight.gateway.page.several import (
    Asked,
    field_of_axis,
    options_of,
    read_several,
    several_in,
    typed_several,
    without_several,
)
from safelight.gateway.page.shelf import levels_of
from safelight.gateway.workflows import check
from tests.gateway.conftest import Alone
from tests.served import CHECKOUT

PRODUCTS = CHECKOUT / "tests" / "flows" / "batching" / "data" / "products.xlsx"
BINARY = {"Content-Type": "application/octet-stream"}
TABLES = "/api/batches/tables?flow=generate"


def asked(given: dict[str, str], flow: str = "generate", *, thorough: bool = True) -> Asked:
    described = contract(flow).described
    form = form_of(flow, described, without_several(given), levels_of(flow))
    parameters, wrong = read(form)
    return read_several(form, several_in(given), parameters, wrong, thorough=thorough)


def test_axes_are_a_grid():
    given = {
        "prompt": "a red heart", "width": "64", "height": "64",
        "many.x": "steps", "many.x.values": "2, 3", "many.y": "seed", "many.y.values": "1..3",
        "many.z": "replace", "many.z.values": 'red, "red, or blue"',
    }  # fmt: skip
    found = asked(given)
    assert (found.wrong, found.error, found.count) == ({}, None, 12)
    assert found.parameters == {
        "flow": "generate",
        "grid": {"steps": ["2", "3"], "seed": ["1..3"], "replace": ["red", "red, or blue"]},
        "parameters": {"prompt": "a red heart", "width": 64, "height": 64},
        "x": "steps", "y": "seed", "z": "replace",
    }  # fmt: skip
    check("batch", found.parameters)
    several = typed_several(found.parameters)
    assert several == {name: text for name, text in given.items() if name.startswith("many.")}


def test_what_an_axis_gives_need_not_stand_in_the_form():
    found = asked({"many.x": "prompt", "many.x.values": "a heart, a house"})
    assert (found.wrong, found.count) == ({}, 2)


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        ({"many.x": "steps"}, "many.x.values", "This is needed."),
        ({"many.x.values": "1,2"}, "many.x", "Choose what changes."),
        ({"many.x": "steps", "many.x.values": " , "}, "many.x.values", "steps has no value."),
        (
            {"many.x": "steps", "many.x.values": "2", "many.y": "steps", "many.y.values": "3"},
            "many.y",
            "This has an axis already.",
        ),
        (
            {"many.x": "steps", "many.x.values": "2", "many.table": "store:x"},
            "many.table",
            "Give axes or a table, one of them.",
        ),
    ],
)
def test_what_is_wrong_stands_beside_its_axis(given: dict[str, str], field: str, said: str):
    found = asked({"prompt": "x", **given})
    assert found.count == 0
    assert found.wrong.keys() == {field}
    assert said in found.wrong[field]


def test_a_refused_cell_is_told_of_its_axis():
    given = {"many.x": "steps", "many.x.values": "2,900"}
    found = asked(given)
    assert found.wrong["many.x.values"] == "900 is above 150. Take 1 to 150."
    given = {"prompt": "x", "many.x": "use_upscale", "many.x.values": "true,maybe"}
    found = asked(given)
    assert found.error is not None
    assert "use_upscale" in found.error.problem

    assert field_of_axis(several_in(given), "use_upscale") == "many.x.values"
    assert field_of_axis(several_in(given), "width") == "width"


def test_axes_are_what_a_run_takes_as_text():
    for flow in ("generate", "photoreal_portrait_v1", "inpaint"):
        described = contract(flow).described
        form = form_of(flow, described, {}, levels_of(flow))
        offered = {each.value for each in options_of(form)}
        assert offered - {"replace"} <= described.keys()
        assert {"prompt", "seed", "replace"} <= offered
        assert not {"image", "mask", "loras", "identity_reference"} & offered


@pytest.mark.parametrize(
    "batch",
    [
        {"requests": [{"prompt": "x"}]},
        {"grid": {"steps+seed": [["1", "2"]]}},
        {"grid": {"lora:red": [0.5]}},
        {"grid": {"prompt": [{"every": "a {red|blue} heart"}]}},
        {"grid": {name: ["1"] for name in ("steps", "seed", "width", "height")}},
        {"file": "/data/uploads/nightly.csv"},
    ],
)
def test_what_a_form_cannot_say_stays_the_form_of_the_batch(batch: dict[str, object]):
    assert typed_several({"flow": "generate", **batch}) is None  # pyright: ignore[reportArgumentType]


def test_a_table_is_read_before_it_is_kept(alone: Alone):
    table = b"prompt,seed\na red heart,7\na blue bird,8..9\n"
    kept = alone.ask("POST", TABLES, content=table, headers=BINARY)
    assert kept.status_code == 201
    assert kept.json()["rows"] == 2
    link = kept.json()["uri"]
    assert (alone.volume / link.removeprefix("store:")).read_bytes() == table
    given = {"width": "64", "height": "64", "many.table": link}
    found = asked(given)
    assert (found.wrong, found.error, found.count) == ({}, None, 3)
    assert found.parameters["file"] == link
    assert asked(given, thorough=False).count == 2
    assert typed_several(found.parameters) == {"many.table": link}
    short = alone.ask("POST", TABLES, content=b"seed\n7\n", headers=BINARY).json()["uri"]
    refused = asked({"many.table": short})
    assert refused.error is not None
    assert refused.error.code == "MISSING_REQUIRED_FIELD"
    assert asked({"many.table": short, "prompt": "x"}).count == 1


def test_a_workbook_and_prompts_are_tables_too(alone: Alone):
    book = PRODUCTS.read_bytes()
    kept = alone.ask("POST", TABLES, content=book, headers=BINARY)
    assert (kept.status_code, kept.json()["rows"]) == (201, len(parse(book)))
    assert "spreadsheet" in kept.json()["media_type"]
    lines = b"a red heart --steps 3\na blue bird\n"
    prompts = alone.ask("POST", f"{TABLES}&prompts=true", content=lines, headers=BINARY)
    assert (prompts.status_code, prompts.json()["rows"]) == (201, 2)
    assert alone.ask("POST", TABLES, content=lines, headers=BINARY).status_code == 400


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "code"),
    [
        (TABLES, b"promt\nx\n", BINARY, 400, "CONTRACT_MISMATCH"),
        (TABLES, b"prompt\n", BINARY, 400, "INVALID_FIELD_VALUE"),
        (TABLES, b"", BINARY, 400, "INVALID_FIELD_VALUE"),
        (TABLES, b"PK\x03\x04" + bytes(64), BINARY, 400, "INVALID_FIELD_VALUE"),
        (TABLES, b"prompt\nx\n", {"Content-Type": "text/plain"}, 415, "CONTRACT_MISMATCH"),
        ("/api/batches/tables?flow=nothing", b"prompt\nx\n", BINARY, 400, "CONTRACT_MISMATCH"),
        (TABLES, b"x" * (32 * 2**20 + 1), BINARY, 413, "INVALID_FIELD_VALUE"),
    ],
)
def test_what_is_no_table_of_the_flow_is_refused(
    alone: Alone, path: str, content: bytes, headers: dict[str, str], status: int, code: str
):
    before = sorted((alone.volume / "uploads").rglob("*"))
    answer = alone.ask("POST", path, content=content, headers=headers)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    assert sorted((alone.volume / "uploads").rglob("*")) == before
