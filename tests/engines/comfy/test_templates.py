"""Templates that stages are drawn by on a ComfyUI, filled with typed requests."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safelight.engines.add_on_use import AddOnUse
from safelight.engines.choosing import candidates, engines
from safelight.engines.comfy.digests import model_digests
from safelight.engines.comfy.engine import ENGINE
from safelight.engines.graphs import read_graph
from safelight.engines.interface import DrawRequest, RedrawRequest
from safelight.errors import PipelineError
from safelight.settings import settings
from safelight.weights.hashing import weights_sha256
from tests.engines.comfy.comfy_server import GRAPH, Comfy, named_comfy


@pytest.fixture
def there(volume: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Comfy]:
    with named_comfy(monkeypatch) as held:
        yield held


def wanted(**fields: Any) -> DrawRequest:
    given = {"prompt": "a red heart", "seed": 7, "width": 64, "height": 96, "steps": 3, **fields}
    return DrawRequest(**given)


def sent(there: Comfy) -> dict[str, Any]:
    return there.history[there.submitted[-1]]["prompt"][2]


def of_type(prompt: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [each["inputs"] for each in prompt.values() if each["class_type"] == kind]


def test_a_request_becomes_a_graph_that_draws_each_picture_from_its_seed(there: Comfy):
    request = wanted(
        num_images=2, negative_prompt="blue", scheduler="euler_karras", model="tiny_sd15"
    )
    made = ENGINE.draw(request)
    assert len(made.pixels) == 2
    assert all(each.shape[2] == 3 for each in made.pixels)
    prompt = sent(there)
    samplers = of_type(prompt, "KSampler")
    assert [each["seed"] for each in samplers] == [7, 8]
    assert {(each["sampler_name"], each["scheduler"], each["steps"]) for each in samplers} == {
        ("euler", "karras", 3)
    }
    assert [each["text"] for each in of_type(prompt, "CLIPTextEncode")] == ["a red heart", "blue"]
    (size,) = of_type(prompt, "EmptyLatentImage")
    assert (size["width"], size["height"]) == (64, 96)
    assert made.sampler == "euler_karras"
    read_graph(json.dumps(prompt), "sent")


def test_a_picture_is_drawn_over_by_its_strength(there: Comfy):
    picture = np.full((32, 48, 3), 90, np.uint8)
    request = RedrawRequest(prompt="a red heart", seed=7, steps=3, strength=0.4)
    ENGINE.redraw(request, picture)
    prompt = sent(there)
    assert of_type(prompt, "KSampler")[0]["denoise"] == 0.4
    assert [of_type(prompt, "LoadImage")[0]["image"]] == list(there.uploads)


def test_clip_skip_stops_before_the_last_layers_of_both_prompts(there: Comfy):
    ENGINE.draw(wanted(clip_skip=2))
    prompt = sent(there)
    ((name, node),) = [
        each for each in prompt.items() if each[1]["class_type"] == "CLIPSetLastLayer"
    ]
    assert node["inputs"]["stop_at_clip_layer"] == -2  # the penultimate, as generate counts
    source, output = node["inputs"]["clip"]
    assert (prompt[source]["class_type"], output) == ("CheckpointLoaderSimple", 1)
    assert [each["clip"] for each in of_type(prompt, "CLIPTextEncode")] == [[name, 0]] * 2
    ENGINE.draw(wanted(clip_skip=1))
    assert of_type(sent(there), "CLIPSetLastLayer") == []


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a model": ({"model": "sdxl"}, "no checkpoint 'sdxl'; it has tiny_sd15.safetensors"),
    "a lora": ({"loras": (AddOnUse("toys"),)}, "no lora 'toys'"),
    "a vae": ({"vae": "sharp"}, "no vae 'sharp'"),
    "a sampler": ({"scheduler": "unheard_of"}, "no sampler 'unheard_of'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_server_has_not_is_named(there: Comfy, case: str):
    fields, said = REFUSED[case]
    with pytest.raises(PipelineError) as refused:
        ENGINE.identity(wanted(**fields))
    assert refused.value.code == "DEPENDENCY_MISSING"
    assert said in refused.value.problem
    assert there.submitted == []


def test_what_no_template_draws_is_refused_at_once(there: Comfy):
    refused = ENGINE.can(wanted(ip_adapter=AddOnUse("faces")))
    assert refused is not None
    assert (refused.code, there.asked) == ("DEPENDENCY_MISSING", [])
    assert ENGINE.can(wanted()) is None


def test_stages_go_there_only_where_a_preset_names_it(volume: Path):
    asked = [each.engine_id for each in candidates(wanted(), (), engines())]
    assert "local_comfy" not in asked
    named = candidates(wanted(), ("diffusers", "local_comfy"), engines())
    assert [each.engine_id for each in named][:2] == ["diffusers", "local_comfy"]


def test_the_model_is_a_part_of_what_a_result_counts_as(
    there: Comfy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert "tiny_sd15.safetensors" in ENGINE.identity(wanted()).version
    file = tmp_path / "ComfyUI" / "models" / "checkpoints" / "tiny_sd15.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    monkeypatch.setenv("SAFELIGHT_COMFY_DIR", str(tmp_path / "ComfyUI"))
    settings.cache_clear()
    assert ENGINE.identity(wanted()).weights == (weights_sha256(file),)
    graph = json.loads(json.dumps(GRAPH))
    assert model_digests(read_graph(json.dumps(graph), "drawn")) == (weights_sha256(file),)
    graph["4"]["inputs"]["ckpt_name"] = "../../../secret.safetensors"
    (tmp_path / "secret.safetensors").write_bytes(b"secret")
    assert model_digests(read_graph(json.dumps(graph), "drawn")) == ()
