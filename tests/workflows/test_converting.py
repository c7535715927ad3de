"""What the editor saves becomes what the API takes, or is refused with the way to export it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safelight.engines.graphs import read_graph
from safelight.errors import PipelineError
from safelight.workflows.converting import converted, is_of_editor
from tests.engines.comfy.comfy_server import GRAPH, RECORDED

KNOWN = RECORDED["object_info"]


def node(number: int, kind: str, values: list[Any], links: dict[str, int], **more: Any) -> Any:
    inputs = [{"name": name, "type": "*", "link": link} for name, link in links.items()]
    return {"id": number, "type": kind, "widgets_values": values, "inputs": inputs, **more}


def editor(**changed: Any) -> dict[str, Any]:
    """The recorded graph as the editor saves it, with a switch of seeds and one that is a note."""
    linked = {"model": 1, "positive": 2, "negative": 3, "latent_image": 4}
    sampler = [5, "randomize", 3, 7.0, "euler", "normal", 1.0]
    return {
        "nodes": [
            node(3, "KSampler", sampler, linked),
            node(4, "CheckpointLoaderSimple", ["tiny_sd15.safetensors"], {}),
            node(5, "EmptyLatentImage", [64, 64, 1], {}),
            node(6, "CLIPTextEncode", ["a lighthouse"], {"clip": 5}, title="Positive"),
            node(7, "CLIPTextEncode", [""], {"clip": 6}, title="Negative"),
            node(8, "VAEDecode", [], {"samples": 7, "vae": 8}),
            node(9, "SaveImage", ["Safelight"], {"images": 9}),
            node(10, "Note", ["words"], {}),
            *changed.pop("nodes", []),
        ],
        "links": [
            [1, 4, 0, 3, 0, "MODEL"],
            [2, 6, 0, 3, 1, "CONDITIONING"],
            [3, 7, 0, 3, 2, "CONDITIONING"],
            [4, 5, 0, 3, 3, "LATENT"],
            [5, 4, 1, 6, 0, "CLIP"],
            [6, 4, 1, 7, 0, "CLIP"],
            [7, 3, 0, 8, 0, "LATENT"],
            [8, 4, 2, 8, 1, "VAE"],
            [9, 8, 0, 9, 0, "IMAGE"],
            *changed.pop("links", []),
        ],
        **changed,
    }


def api(saved: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(saved).encode()
    assert is_of_editor(text)
    made = converted(text, KNOWN, "drawn")
    read_graph(made, "drawn")
    return json.loads(made)


def plain(graph: dict[str, Any]) -> dict[str, Any]:
    return {name: (each["class_type"], each["inputs"]) for name, each in graph.items()}


def test_it_is_the_graph_that_comfyui_exports():
    assert plain(api(editor())) == plain(GRAPH)
    assert not is_of_editor(json.dumps(GRAPH).encode())


def test_what_only_passes_on_is_passed_by():
    saved = editor(
        nodes=[
            node(20, "Reroute", [], {"": 20}),
            node(21, "PrimitiveNode", [9, "fixed"], {}),
        ],
        links=[[20, 4, 1, 20, 0, "*"], [21, 20, 0, 6, 0, "CLIP"], [22, 21, 0, 3, 4, "INT"]],
    )
    saved["nodes"][3]["inputs"][0]["link"] = 21
    saved["nodes"][0]["inputs"].append({"name": "seed", "type": "INT", "link": 22})
    made = api(saved)
    assert made["6"]["inputs"]["clip"] == ["4", 1]
    assert made["3"]["inputs"]["seed"] == 9
    assert "20" not in made
    assert "21" not in made


def test_muted_nodes_are_gone_and_bypassed_ones_stepped_over():
    saved = editor()
    saved["nodes"][5]["mode"] = 4
    saved["nodes"][5]["outputs"] = [{"type": "IMAGE"}]
    saved["nodes"][4]["mode"] = 2
    made = api(saved)
    assert "negative" not in made["3"]["inputs"]
    assert "images" not in made["9"]["inputs"]  # nothing of its type comes in
    assert made.keys() == {"3", "4", "5", "6", "9"}


UNCLEAR: dict[str, tuple[dict[str, Any], str]] = {
    "subgraphs": ({"definitions": {"subgraphs": [{"id": "a"}]}}, "CONTRACT_MISMATCH"),
    "too many values": ({"nodes": [node(30, "VAEDecode", [1], {})]}, "CONTRACT_MISMATCH"),
    "a value of another kind": (
        {"nodes": [node(30, "EmptyLatentImage", ["wide", 64, 1], {})]},
        "CONTRACT_MISMATCH",
    ),
    "too few values": ({"nodes": [node(30, "EmptyLatentImage", [64], {})]}, "CONTRACT_MISMATCH"),
    "an unknown node": ({"nodes": [node(30, "Fancy", [], {})]}, "DEPENDENCY_MISSING"),
    "a circle": (
        {
            "nodes": [
                node(30, "Reroute", [], {"": 30}),
                node(31, "SaveImage", ["a"], {"images": 30}),
            ],
            "links": [[30, 30, 0, 30, 0, "*"]],
        },
        "CONTRACT_MISMATCH",
    ),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_what_is_not_certain_is_refused_with_the_way_out(case: str):
    changed, code = UNCLEAR[case]
    with pytest.raises(PipelineError) as refused:
        api(editor(**json.loads(json.dumps(changed))))
    assert refused.value.code == code
    assert "Export (API)" in refused.value.remedy


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 99) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@settings(max_examples=60)
@given(
    nodes=JSON, links=JSON, at=st.integers(0, 7), field=st.sampled_from(["inputs", "type", "id"])
)
def test_whatever_stands_there_is_a_graph_or_has_a_code(
    nodes: Any, links: Any, at: int, field: str
):
    broken = editor()
    broken["nodes"][at][field] = nodes
    for saved in ({"nodes": [nodes], "links": links}, {**editor(), "links": [links]}, broken):
        codes = ["CONTRACT_MISMATCH"]
        try:
            converted(json.dumps(saved).encode(), KNOWN, "drawn")
        except PipelineError as error:
            codes.append(error.code)
        assert set(codes) <= {"CONTRACT_MISMATCH", "DEPENDENCY_MISSING", "INVALID_FIELD_VALUE"}
