"""What other programs write into their pictures, in the words of `generate`."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight.provenance.remixing.comfyui import understand_comfyui
from safelight.provenance.remixing.invokeai import understand_invokeai
from safelight.provenance.remixing.understood import Hires
from safelight.provenance.remixing.webui import understand_webui

WEBUI = """a lighthouse, (storm:1.2) <lora:ink:0.7>
Negative prompt: blurry
Steps: 24, Sampler: DPM++ 2M, Schedule type: Automatic, CFG scale: 6.5, Seed: 77, Size: 640x384, \
Model hash: 1a2b3c4d5e, Model: harbour_v2, Clip skip: 2, Denoising strength: 0.4, \
Hires upscale: 2, Version: v1.9.4"""


def test_webui_text():
    found = understand_webui(WEBUI)
    assert found.parameters == {
        "prompt": "a lighthouse, (storm:1.2)",
        "negative_prompt": "blurry",
        "loras": [{"name": "ink", "weight": 0.7}],
        "width": 640,
        "height": 384,
        "model": "harbour_v2",
        "steps": 24,
        "seed": 77,
        "guidance_scale": 6.5,
        "scheduler": "dpmpp_2m_karras",
        "clip_skip": 2,
    }
    assert found.hires == Hires(scale=2, strength=0.4)
    left = "\n".join(found.left)
    for name in ("Model hash", "Version"):
        assert name in left


@pytest.mark.parametrize(
    ("sampler", "ours"),
    [
        ("Sampler: Euler a", "euler_a"),
        ("Sampler: Euler a, Schedule type: Automatic", "euler_a"),
        ("Sampler: DPM++ 2M Karras", "dpmpp_2m_karras"),
        ("Sampler: Euler, Schedule type: Karras", "euler_karras"),
        ("Sampler: DDIM, Schedule type: Uniform", "ddim"),
        ("Sampler: Restart", None),
        ("Sampler: Euler, Schedule type: Align Your Steps", "euler"),
    ],
)
def test_webui_samplers(sampler: str, ours: str | None):
    found = understand_webui(f"x\nSteps: 5, {sampler}, Seed: 1, CFG scale: 7")
    assert found.parameters.get("scheduler") == ours
    assert bool(found.left) == (ours is None or "Align" in sampler)


@pytest.mark.parametrize(
    ("vae", "ours"), [("film.vae.pt", "film.vae"), ("None", None), ("Automatic", None)]
)
def test_webui_vae(vae: str, ours: str | None):
    found = understand_webui(
        f"x\nSteps: 5, Seed: 1, CFG scale: 7, VAE hash: 63aeecb90f, VAE: {vae}"
    )
    assert found.parameters.get("vae") == ours
    assert [line for line in found.left if "VAE" in line and "VAE hash" not in line] == []


@pytest.mark.parametrize(
    ("said", "guidance"),
    [
        ("CFG scale: 1, Distilled CFG Scale: 3.5", 3.5),
        ("CFG scale: 4, Distilled CFG Scale: 3.5", 4.0),
    ],
)
def test_the_guidance_of_flux_is_taken_where_the_other_does_nothing(said: str, guidance: float):
    found = understand_webui(f"x\nSteps: 5, Sampler: Euler, Seed: 1, {said}")
    assert found.parameters["guidance_scale"] == guidance
    assert bool(found.left) == (guidance != 3.5)


def test_numbers_that_are_none_are_left():
    found = understand_webui("x\nSteps: many, Seed: 99999999999999999999, CFG scale: 7, Size: wide")
    assert found.parameters == {"prompt": "x", "guidance_scale": 7.0}
    assert [text.split(" ")[0] for text in found.left] == ["steps", "seed", "Size"]


def test_invokeai_metadata():
    found = understand_invokeai(
        {
            "app_version": "4.2.9",
            "generation_mode": "sdxl_txt2img",
            "positive_prompt": "a harbour at dawn++",
            "negative_prompt": "people",
            "width": 832,
            "height": 1216,
            "seed": 123,
            "cfg_scale": 5.5,
            "steps": 30,
            "scheduler": "dpmpp_2m_k",
            "model": {"key": "k", "name": "harbourXL", "base": "sdxl"},
            "loras": [{"model": {"name": "ink"}, "weight": 0.6}, {"weight": 1}],
            "clip_skip": 1,
            "vae": {"name": "softer"},
            "controlnets": [],
        }
    )
    assert found.parameters == {
        "prompt": "a harbour at dawn++",
        "negative_prompt": "people",
        "seed": 123,
        "steps": 30,
        "width": 832,
        "height": 1216,
        "guidance_scale": 5.5,
        "model": "harbourXL",
        "scheduler": "dpmpp_2m_karras",
        "loras": [{"name": "ink", "weight": 0.6}],
        "clip_skip": 2,
        "vae": "softer",
    }
    left = "\n".join(found.left)
    for said in ("app_version", "LoRA", "weights with + and -"):
        assert said in left
    assert "clip_skip" not in left


def graph() -> dict[str, Any]:
    """Two passes: the second draws over what the first made, at twice the size."""
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd/harbour.ckpt"}},
        "2": {
            "class_type": "LoraLoader",
            "inputs": {
                "lora_name": "ink.safetensors",
                "strength_model": 0.8,
                "strength_clip": 0.5,
                "model": ["1", 0],
                "clip": ["1", 1],
            },
        },
        "3": {"class_type": "PrimitiveString", "inputs": {"value": "a pier"}},
        "4": {"class_type": "CLIPTextEncode", "inputs": {"text": ["3", 0], "clip": ["2", 1]}},
        "5": {"class_type": "CLIPTextEncode", "inputs": {"text": "fog", "clip": ["2", 1]}},
        "6": {
            "class_type": "EmptyLatentImage",
            "inputs": {"width": 512, "height": 320, "batch_size": 2},
        },
        "9": {
            "class_type": "KSampler",
            "inputs": {
                "seed": 6,
                "steps": 9,
                "cfg": 5,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 0.5,
                "model": ["2", 0],
                "positive": ["4", 0],
                "negative": ["5", 0],
                "latent_image": ["8", 0],
            },
        },
        "7": {
            "class_type": "KSampler",
            "inputs": {
                "seed": 5,
                "steps": 12,
                "cfg": 6.5,
                "sampler_name": "dpmpp_2m",
                "scheduler": "karras",
                "denoise": 1,
                "model": ["2", 0],
                "positive": ["4", 0],
                "negative": ["5", 0],
                "latent_image": ["6", 0],
            },
        },
        "8": {"class_type": "LatentUpscaleBy", "inputs": {"samples": ["7", 0], "scale_by": 2}},
        "10": {"class_type": "VAEDecode", "inputs": {"samples": ["9", 0], "vae": ["1", 2]}},
        "11": {"class_type": "SaveImage", "inputs": {"images": ["10", 0]}},
    }


def test_comfyui_graph():
    found = understand_comfyui(graph())
    assert found.parameters == {
        "seed": 5,
        "steps": 12,
        "guidance_scale": 6.5,
        "scheduler": "dpmpp_2m_karras",
        "width": 512,
        "height": 320,
        "num_images": 2,
        "prompt": "a pier",
        "negative_prompt": "fog",
        "model": "harbour",
        "loras": [{"name": "ink", "weight": 0.8, "text_weight": 0.5}],
    }
    left = "\n".join(found.left)
    assert "node 9 KSampler: another pass" in left
    assert "node 8 LatentUpscaleBy" in left


def test_comfyui_graph_of_parts():
    found = understand_comfyui(
        {
            "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux/dev.safetensors"}},
            "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a pier"}},
            "3": {
                "class_type": "FluxGuidance",
                "inputs": {"guidance": 3.5, "conditioning": ["2", 0]},
            },
            "4": {
                "class_type": "BasicGuider",
                "inputs": {"model": ["1", 0], "conditioning": ["3", 0]},
            },
            "5": {"class_type": "RandomNoise", "inputs": {"noise_seed": 44}},
            "6": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
            "7": {
                "class_type": "BasicScheduler",
                "inputs": {"scheduler": "simple", "steps": 4, "denoise": 1.0, "model": ["1", 0]},
            },
            "8": {
                "class_type": "EmptySD3LatentImage",
                "inputs": {"width": 1024, "height": 768, "batch_size": 1},
            },
            "9": {
                "class_type": "SamplerCustomAdvanced",
                "inputs": {
                    "noise": ["5", 0],
                    "guider": ["4", 0],
                    "sampler": ["6", 0],
                    "sigmas": ["7", 0],
                    "latent_image": ["8", 0],
                },
            },
        }
    )
    assert found.parameters == {
        "seed": 44,
        "steps": 4,
        "guidance_scale": 3.5,
        "scheduler": "euler",
        "width": 1024,
        "height": 768,
        "prompt": "a pier",
        "model": "dev",
    }
    assert found.left == ()


def test_comfyui_layer_of_clip_and_vae():
    asked: Any = graph()
    asked["12"] = {
        "class_type": "CLIPSetLastLayer",
        "inputs": {"stop_at_clip_layer": -2, "clip": ["2", 1]},
    }
    asked["13"] = {"class_type": "VAELoader", "inputs": {"vae_name": "soft/film.vae.pt"}}
    for text in ("4", "5"):
        asked[text]["inputs"]["clip"] = ["12", 0]
    asked["10"]["inputs"]["vae"] = ["13", 0]
    found = understand_comfyui(asked)
    assert found.parameters["clip_skip"] == 2
    assert found.parameters["vae"] == "film.vae"
    assert not any("CLIPSetLastLayer" in said or "VAELoader" in said for said in found.left)
    asked["1"] = {"class_type": "UNETLoader", "inputs": {"unet_name": "dev.safetensors"}}
    asked["12"]["inputs"]["stop_at_clip_layer"] = -24
    found = understand_comfyui(asked)
    assert {"clip_skip", "vae"}.isdisjoint(found.parameters)
    left = "\n".join(found.left)
    assert "VAE soft/film.vae.pt: a model without one takes it from beside its file" in left
    assert "stop_at_clip_layer -24: no number of a layer" in left


def test_the_guidance_of_flux_in_a_graph_wins_over_one_that_is_not_its():
    asked: Any = graph()
    asked["12"] = {
        "class_type": "FluxGuidance",
        "inputs": {"guidance": 3.5, "conditioning": ["4", 0]},
    }
    asked["7"]["inputs"]["positive"] = ["12", 0]
    found = understand_comfyui(asked)
    assert found.parameters["guidance_scale"] == 3.5
    assert found.parameters["prompt"] == "a pier"
    assert "cfg 6.5: the guidance of FluxGuidance is taken" in found.left


def test_a_graph_that_goes_in_circles_ends():
    turning = graph()
    turning["2"]["inputs"]["model"] = ["2", 0]
    turning["4"]["inputs"]["text"] = ["4", 0]
    turning["6"] = {"class_type": "LatentFlip", "inputs": {"samples": ["6", 0]}}
    found = understand_comfyui(turning)
    assert "model" not in found.parameters
    assert "prompt" not in found.parameters


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.data())
def test_whatever_a_graph_holds_is_read_or_left(data: st.DataObject):
    spoilt = graph()
    for name in data.draw(st.lists(st.sampled_from(list(spoilt)), min_size=1, max_size=4)):
        node = spoilt[name]
        if isinstance(node, dict) and isinstance(node.get("inputs"), dict) and node["inputs"]:
            field = data.draw(st.sampled_from(list(node["inputs"])))
            links = st.sampled_from([[other, 0] for other in graph()])
            node["inputs"][field] = data.draw(json_values | links)
        if data.draw(st.booleans()):
            spoilt[name] = data.draw(json_values)
    found = understand_comfyui(spoilt)
    assert json.dumps(found.parameters)


@given(
    st.dictionaries(
        st.sampled_from(["seed", "model", "loras", "scheduler", "cfg_scale", "width", "x"]),
        json_values,
    )
)
def test_whatever_metadata_hold_is_read_or_left(given_values: dict[str, Any]):
    assert json.dumps(understand_invokeai(given_values).parameters)
