"""InstantID through a ComfyUI that has the pack: the workflow it gets, and what it is asked first.

The server of the tests holds links, choices and limits against what the pack says of its nodes.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from safelight.engines.add_on_use import ControlUse
from safelight.engines.choosing import candidates, choose, engines
from safelight.engines.comfy.engine import ENGINE
from safelight.engines.instant_id import InstantIdRequest
from safelight.errors import PipelineError
from tests.engines.comfy.comfy_server import Comfy, named_comfy
from tests.engines.comfy.validating import refusal_of

PACK: dict[str, Any] = json.loads((Path(__file__).parent / "instant_id.json").read_text())
FACE = {"weight": 0.6, "clip_skip": 2}
TEXTS = {"prompt": "a sailor", "negative_prompt": "blue"}
WANTED = InstantIdRequest(**TEXTS, **FACE, seed=7, width=64, height=96)
CONTROL = "instant-id/diffusion_pytorch_model.safetensors"


@pytest.fixture
def there(volume: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Comfy]:
    with named_comfy(monkeypatch) as held:
        held.nodes.update(PACK)
        yield held


def photographs(*shapes: tuple[int, int]) -> list[np.ndarray]:
    return [np.full((*shape, 3), 40 * at, np.uint8) for at, shape in enumerate(shapes, start=1)]


def sent(there: Comfy) -> dict[str, Any]:
    return there.history[there.submitted[-1]]["prompt"][2]


def only(prompt: dict[str, Any], kind: str) -> dict[str, Any]:
    (found,) = (each["inputs"] for each in prompt.values() if each["class_type"] == kind)
    return found


def source(prompt: dict[str, Any], link: list[Any]) -> tuple[str, int]:
    return prompt[link[0]]["class_type"], link[1]


def test_the_nodes_of_the_pack_are_linked_as_it_wants_them(there: Comfy):
    made = ENGINE.draw_person(WANTED, photographs((48, 48)))
    assert len(made.pixels) == 1
    prompt = sent(there)
    applied = only(prompt, "ApplyInstantID")
    assert {
        name: source(prompt, link) for name, link in applied.items() if isinstance(link, list)
    } == {
        "instantid": ("InstantIDModelLoader", 0),
        "insightface": ("InstantIDFaceAnalysis", 0),
        "control_net": ("ControlNetLoader", 0),
        "image": ("LoadImage", 0),
        "model": ("CheckpointLoaderSimple", 0),
        "positive": ("CLIPTextEncode", 0),
        "negative": ("CLIPTextEncode", 0),
    }
    assert (applied["weight"], applied["start_at"], applied["end_at"]) == (0.6, 0.0, 1.0)
    texts = [prompt[applied[name][0]]["inputs"] for name in ("positive", "negative")]
    assert [each["text"] for each in texts] == ["a sailor", "blue"]
    assert {source(prompt, each["clip"]) for each in texts} == {("CLIPSetLastLayer", 0)}
    assert only(prompt, "InstantIDModelLoader") == {"instantid_file": "ip-adapter.bin"}
    assert only(prompt, "ControlNetLoader") == {"control_net_name": CONTROL}
    assert only(prompt, "InstantIDFaceAnalysis") == {"provider": "CPU"}
    sampler = only(prompt, "KSampler")
    assert [source(prompt, sampler[name]) for name in ("model", "positive", "negative")] == [
        ("ApplyInstantID", 0),
        ("ApplyInstantID", 1),
        ("ApplyInstantID", 2),
    ]
    assert (sampler["seed"], sampler["denoise"]) == (7, 1.0)


def test_photographs_are_sent_whole_and_in_the_frame_of_the_result(there: Comfy):
    ENGINE.draw_person(WANTED, photographs((200, 100), (50, 100), (96, 64)))
    prompt = sent(there)
    images: list[str] = []
    link = only(prompt, "ApplyInstantID")["image"]
    while source(prompt, link)[0] == "ImageBatch":
        batch = prompt[link[0]]["inputs"]
        images.insert(0, prompt[batch["image2"][0]]["inputs"]["image"])
        link = batch["image1"]
    images.insert(0, prompt[link[0]]["inputs"]["image"])
    seen = [Image.open(io.BytesIO(there.uploads[name])) for name in images]
    assert [each.size for each in seen] == [(64, 96)] * 3  # a batch would crop others
    assert [each.getpixel((32, 48)) for each in seen] == [(40,) * 3, (80,) * 3, (120,) * 3]


def without(there: Comfy, kind: str) -> None:
    del there.nodes[kind]


def choice(there: Comfy, kind: str, name: str, values: list[str]) -> None:
    there.nodes[kind] = {**PACK[kind], "input": {"required": {name: [values]}}}


LACKING: dict[str, tuple[Any, str, str]] = {
    **{
        kind: (lambda there, kind=kind: without(there, kind), repr(kind), "ComfyUI_InstantID")
        for kind in ("InstantIDModelLoader", "InstantIDFaceAnalysis", "ApplyInstantID")
    },
    "its model": (
        lambda there: choice(there, "InstantIDModelLoader", "instantid_file", []),
        "no model of InstantID; it has none",
        "folder of models",
    ),
    "its ControlNet": (
        lambda there: choice(there, "ControlNetLoader", "control_net_name", ["canny.pth"]),
        "no ControlNet with instantid in its name; it has canny.pth",
        "models/controlnet",
    ),
}


@pytest.mark.parametrize("case", LACKING)
def test_what_the_server_lacks_is_named_before_anything_is_sent(there: Comfy, case: str):
    take, said, remedy = LACKING[case]
    take(there)
    with pytest.raises(PipelineError) as refused:
        choose(WANTED)
    assert refused.value.code == "DEPENDENCY_MISSING"
    assert said in refused.value.problem
    assert remedy in refused.value.remedy
    assert not [asked for asked in there.asked if asked[0] == "POST"]


def test_a_model_of_instantid_is_found_by_its_name(there: Comfy):
    choice(there, "InstantIDModelLoader", "instantid_file", ["a.bin", "people/faces.safetensors"])
    ENGINE.draw_person(replace(WANTED, adapter="faces"), photographs((8, 8)))
    assert only(sent(there), "InstantIDModelLoader")["instantid_file"] == "people/faces.safetensors"
    with pytest.raises(PipelineError, match="no model of InstantID 'hands'"):
        ENGINE.identity(replace(WANTED, adapter="hands"))


def test_the_models_are_a_part_of_what_a_result_counts_as(there: Comfy):
    version = ENGINE.identity(WANTED).version
    assert version.endswith(f":tiny_sd15.safetensors:ip-adapter.bin:{CONTROL}")


def test_no_other_engine_is_asked_and_a_comfyui_has_to_be_named(volume: Path):
    assert [each.engine_id for each in candidates(WANTED, (), engines())] == ["local_comfy"]
    with pytest.raises(PipelineError, match="InstantID, and no ComfyUI is named") as refused:
        choose(WANTED)
    assert refused.value.code == "DEPENDENCY_MISSING"
    assert "SAFELIGHT_COMFY_URL" in refused.value.remedy


def test_a_second_controlnet_is_refused_at_once(there: Comfy):
    refused = ENGINE.can(replace(WANTED, controlnets=(ControlUse("canny", 1.0),)))
    assert refused is not None
    assert (refused.code, there.asked) == ("DEPENDENCY_MISSING", [])
    assert "without ControlNet" in refused.problem


WRONG: dict[str, tuple[str, Any, str]] = {
    "a link to another output": ("control_net", ["1", 0], "return_type_mismatch"),
    "no link": ("insightface", None, "required_input_missing"),
    "a strength beyond": ("weight", 5.5, "value_bigger_than_max"),
}


@pytest.mark.parametrize("case", WRONG)
def test_the_server_of_the_tests_would_refuse(there: Comfy, case: str):
    ENGINE.draw_person(WANTED, photographs((8, 8)))
    prompt = json.loads(json.dumps(sent(there)))
    assert refusal_of(prompt, there.nodes) is None
    name, value, kind = WRONG[case]
    only(prompt, "ApplyInstantID")[name] = value
    refused = refusal_of(prompt, there.nodes)
    assert refused is not None
    ((found,),) = (each["errors"] for each in refused["node_errors"].values())
    assert found["type"] == kind
