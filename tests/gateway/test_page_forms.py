"""Forms of the page: made of schemas, read back, wrong in the person's own number."""

import re
from pathlib import Path

import pytest

import safelight.gateway.page
from safelight.client.contracts import contract
from safelight.gateway.page.forms import form_of, text_of
from safelight.gateway.page.reading import read, typed, with_errors
from safelight.gateway.page.rendering import static_file
from safelight.gateway.page.shelf import choices, levels_of
from safelight.gateway.page.words import WORDS
from safelight.gateway.workflows import WorkflowType, check, flows_of

ROOM = Path(safelight.gateway.page.__file__).parent


@pytest.mark.parametrize("flow", [flow for flow in flows_of() if flow != "train_lora"])
def test_every_parameter_of_every_workflow_has_a_field(flow: str):
    described = contract(flow).described
    form = form_of(flow, described, {}, levels_of(flow))
    names = set(form.by_name)
    assert described.keys() - names <= {"overrides"}
    assert all(name in described or name.startswith("overrides.") for name in names)
    assert {name for name, part in described.items() if part["required"]} <= {
        field.name for field in form.sight
    }
    _, wrong = read(form)
    assert set(wrong) == {field.name for field in form.fields if field.required}


def test_what_is_typed_becomes_parameters_that_the_workflow_takes():
    given = {
        "prompt": "a red heart",
        "seed": "18446744073709551615",
        "steps": "8",
        "guidance_scale": "3,5",
        "loras": '[{"name": "x", "weight": 0.5}]',
        "use_upscale": "true",
        "embeddings": "a, b",
        "width": "512",
    }
    described = contract("generate").described
    parameters, wrong = read(form_of("generate", described, given))
    assert not wrong
    assert parameters == {
        "prompt": "a red heart",
        "seed": 2**64 - 1,
        "steps": 8,
        "guidance_scale": 3.5,
        "loras": [{"name": "x", "weight": 0.5}],
        "use_upscale": True,
        "embeddings": ["a", "b"],
    }
    check("generate", parameters)
    again = {name: text_of(value) for name, value in parameters.items()}
    told = typed(parameters, described)
    assert told == {**again, "embeddings": '["a", "b"]'}


def test_a_preset_takes_what_was_tuned_by_step():
    described = contract("photoreal_portrait_v1").described
    levels = levels_of("photoreal_portrait_v1")
    form = form_of("photoreal_portrait_v1", described, {"prompt": "x"}, levels)
    step = form.by_name["overrides.generate.steps"]
    assert step.default.isdigit()
    given = {"prompt": "x", step.name: str(int(step.default) + 1)}
    parameters, wrong = read(form_of("photoreal_portrait_v1", described, given, levels))
    assert not wrong
    assert parameters["overrides"] == {"generate": {"steps": int(step.default) + 1}}
    check("photoreal_portrait_v1", parameters)
    assert typed(parameters, described) == given


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("steps", "500", "500 is above 150. Take 1 to 150."),
        ("steps", "0", "0 is below 1. Take 1 to 150."),
        ("steps", "many", "many is no whole number."),
        ("guidance_scale", "nan", "nan is no number."),
        ("width", "500", "500 is no multiple of 8. Take 496 or 504."),
        ("loras", "[", "This is no JSON"),
    ],
)
def test_what_is_wrong_is_said_in_the_own_number(name: str, value: str, said: str):
    described = contract("generate").described
    form = form_of("generate", described, {"prompt": "x", name: value})
    _, wrong = read(form)
    assert wrong.keys() == {name}
    assert said in wrong[name]
    assert with_errors(form, wrong).by_name[name].error == wrong[name]
    assert form.by_name[name].shown == value


def test_every_choice_has_its_picture():
    names = frozenset(
        path.relative_to(ROOM / "static").as_posix() for path in (ROOM / "static").rglob("*.webp")
    )
    bare = [one.workflow for one in choices(names) if not one.picture and one.kind != "workflow"]
    assert not bare


def test_every_kind_of_workflow_has_a_word():
    assert {f"kind.{kind.value}" for kind in WorkflowType} <= WORDS.keys()


def test_all_words_stand_in_one_place():
    """Templates and modules say nothing of their own, and nothing that is not there."""
    used: set[str] = set()
    for path in (ROOM / "templates").rglob("*.html"):
        text = path.read_text()
        used |= set(re.findall(r"""\bt\(["']([\w. ]+)["'][,)]""", text))
        shown = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}|<[^>]*>", "", text, flags=re.DOTALL)
        words = set(re.findall(r"[A-Za-z]{3,}", shown))
        assert words <= {"Ctrl", "Enter", "Esc", "Safelight", "nbsp"}, path
    for path in (ROOM / "static").glob("*.js"):
        if path.name != "htmx.js":
            used |= {f"live.{key}" for key in re.findall(r'\bsay\("([\w.]+)"', path.read_text())}
    assert used <= WORDS.keys()
    assert b"being_drawn" in static_file("words.js", None).body


def test_nothing_runs_or_looks_from_within_the_markup():
    for path in (ROOM / "templates").rglob("*.html"):
        text = path.read_text()
        assert not re.search(r'\son\w+="|\sstyle="|<style|javascript:|hx-on', text), path
        assert not re.search(r"<script(?![^>]*\ssrc=)", text), path
        assert not re.search(r'(src|href)="https?://', text), path
