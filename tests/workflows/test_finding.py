"""Forms that are found in workflows: by type, title, limits of the server, and links."""

import json
from typing import Any

import pytest

from safelight.engines.graphs import read_graph
from safelight.errors import PipelineError
from safelight.workflows.finding import find_form
from safelight.workflows.form import Form, form_in, form_text
from tests.engines.comfy.comfy_server import GRAPH, RECORDED

KNOWN = RECORDED["object_info"]


def found(graph: dict[str, Any], known: dict[str, Any] | None = None) -> Form:
    return find_form(read_graph(json.dumps(graph), "drawn"), KNOWN if known is None else known)


def test_what_people_change_has_the_names_that_flows_have():
    form = found(RECORDED["image_graph"])
    assert {name: (each.at, each.kind) for name, each in form.shown().items()} == {
        "prompt": ("6.text", "text"),
        "negative_prompt": ("7.text", "text"),
        "image": ("10.image", "image"),
        "seed": ("3.seed", "seed"),
        "steps": ("3.steps", "integer"),
        "cfg": ("3.cfg", "number"),
        "sampler_name": ("3.sampler_name", "choice"),
        "scheduler": ("3.scheduler", "choice"),
        "denoise": ("3.denoise", "number"),
        "ckpt_name": ("4.ckpt_name", "choice"),
    }
    assert (form.inputs["steps"].least, form.inputs["steps"].most) == (1, 10000)
    assert "euler" in form.inputs["sampler_name"].choices
    assert not form.inputs["filename_prefix"].shown


def test_links_tell_which_text_is_which_where_titles_do_not():
    swapped = json.loads(json.dumps(GRAPH))
    for node in swapped.values():
        node.pop("_meta", None)
    sampler = swapped["3"]["inputs"]
    sampler["positive"], sampler["negative"] = sampler["negative"], sampler["positive"]
    form = found(swapped)
    assert (form.inputs["prompt"].at, form.inputs["negative_prompt"].at) == ("7.text", "6.text")


def test_a_second_of_a_kind_is_named_by_its_node():
    two = json.loads(json.dumps(GRAPH))
    two["20"] = json.loads(json.dumps(GRAPH["3"]))
    two["20"]["_meta"] = {"title": "Second pass"}
    two["20"]["inputs"]["latent_image"] = ["3", 0]
    form = found(two)
    assert form.inputs["steps"].at == "3.steps"
    assert form.inputs["second_pass_steps"].at == "20.steps"
    assert form.inputs["seed"].at == "3.seed"
    assert form.inputs["second_pass_seed"].at == "20.seed"


def test_a_titled_value_is_shown_under_its_title():
    known = {**KNOWN, "PrimitiveFloat": {"input": {"required": {"value": ["FLOAT", {"max": 9}]}}}}
    titled = {
        **GRAPH,
        "30": {
            "class_type": "PrimitiveFloat",
            "inputs": {"value": 1.5},
            "_meta": {"title": "Zoom"},
        },
    }
    zoom = found(titled, known).shown()["zoom"]
    assert (zoom.at, zoom.kind, zoom.most) == ("30.value", "number", 9)


def test_without_a_server_the_values_tell_their_kinds():
    form = found(RECORDED["image_graph"], {})
    assert form.inputs["image"].kind == "image"
    assert form.inputs["seed"].kind == "seed"
    assert form.inputs["cfg"].kind == "number"
    assert form.inputs["sampler_name"].kind == "text"


def test_a_model_that_the_server_has_not_yet_stays_a_choice():
    other = json.loads(json.dumps(GRAPH))
    other["4"]["inputs"]["ckpt_name"] = "mine.safetensors"
    assert found(other).inputs["ckpt_name"].choices == ("mine.safetensors", *RECORDED["models"])


def test_a_form_reads_as_it_is_written():
    graph = read_graph(json.dumps(RECORDED["image_graph"]), "drawn")
    form = find_form(graph, KNOWN, "Draws over a picture.")
    assert form_in(form_text(form), graph, "drawn") == form


REFUSED = {
    "no yaml": ("inputs: [", "INVALID_FIELD_VALUE"),
    "an alias": ("about: &a x\ninputs: {b: *a}", "INVALID_FIELD_VALUE"),
    "a python object": ("about: !!python/object/apply:os.getcwd []", "INVALID_FIELD_VALUE"),
    "too deep": ("inputs: " + "[" * 3000, "INVALID_FIELD_VALUE"),
    "another field": ("inputs: {}\nrun: rm", "CONTRACT_MISMATCH"),
    "no such node": ("inputs: {a: {at: 99.text, kind: text}}", "CONTRACT_MISMATCH"),
    "no such input": ("inputs: {a: {at: 6.words, kind: text}}", "CONTRACT_MISMATCH"),
    "twice the same": (
        "inputs: {a: {at: 6.text, kind: text}, b: {at: 6.text, kind: text}}",
        "CONTRACT_MISMATCH",
    ),
    "no name": ("inputs: {A-b: {at: 6.text, kind: text}}", "INVALID_FIELD_VALUE"),
    "a word of python": ("inputs: {class: {at: 6.text, kind: text}}", "INVALID_FIELD_VALUE"),
    "a name of ours": ("inputs: {workflow: {at: 6.text, kind: text}}", "INVALID_FIELD_VALUE"),
    "a kind of nothing": ("inputs: {a: {at: 6.text, kind: code}}", "INVALID_FIELD_VALUE"),
    "a choice of nothing": ("inputs: {a: {at: 6.text, kind: choice}}", "INVALID_FIELD_VALUE"),
    "limits crossed": (
        "inputs: {a: {at: 3.steps, kind: integer, least: 9, most: 1}}",
        "INVALID_FIELD_VALUE",
    ),
    "a list": ("- a", "INVALID_FIELD_VALUE"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_forms_of_strangers_are_refused_with_a_code(case: str):
    text, code = REFUSED[case]
    with pytest.raises(PipelineError) as refused:
        form_in(text.encode(), read_graph(json.dumps(GRAPH), "drawn"), "drawn")
    assert refused.value.code == code
