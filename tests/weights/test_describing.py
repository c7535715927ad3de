"""What headers and metadata say of models is read, within bounds, and nothing is taken on trust."""

import json
from pathlib import Path

import pytest
from pydantic import JsonValue

from safelight.weights.describing import LONGEST_TEXT, MOST_WORDS, Described, described
from safelight.weights.kinds import ModelType, kind_by_folder
from safelight.weights.scanning import unit_at
from tests.weights.files import LORA, Shapes, put

XL_LORA: Shapes = {"lora_te2_text_model.lora_down.weight": (8, 1280)}
FLUX_LORA: Shapes = {"transformer.double_blocks.0.attn.lora_A.weight": (16, 3072)}


def told(path: Path) -> Described:
    unit = unit_at(path)
    assert unit is not None
    asked: dict[str, JsonValue] = {
        "path": unit.path,
        "folder": unit.folder,
        "facts": unit.facts,
        "preview": unit.preview,
    }
    return described([asked])[0][0]


@pytest.mark.parametrize(
    ("shapes", "kind", "family"),
    [
        (LORA, "lora", "sd"),
        (XL_LORA, "lora", "sdxl"),
        (FLUX_LORA, "lora", "flux"),
        ({"lora_unet_x.hada_w1_a": (8, 4), "lora_unet_x.hada_w1_b": (4, 8)}, "lora", None),
        ({"lora_unet_x.lokr_w1": (4, 4)}, "lora", None),
        ({"emb_params": (3, 768)}, "embedding", "sd"),
        ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "embedding", "sdxl"),
        ({"<cat-toy>": (768,)}, "embedding", "sd"),
        (
            {"model.diffusion_model.a": (1,), "cond_stage_model.transformer.b": (1,)},
            "checkpoint",
            "sd",
        ),
        (
            {"model.diffusion_model.a": (1,), "conditioner.embedders.1.model.b": (1,)},
            "checkpoint",
            "sdxl",
        ),
        ({"model.diffusion_model.joint_blocks.0.a": (1,)}, "checkpoint", "sd3"),
        ({"double_blocks.0.img_attn.a": (1,)}, "checkpoint", "flux"),
        ({"encoder.conv_in.weight": (4, 3, 3, 3), "decoder.conv_out.bias": (3,)}, "vae", None),
        ({"control_model.input_hint_block.0.weight": (1,)}, "controlnet", None),
        ({"image_proj.proj.weight": (1,), "ip_adapter.1.to_k_ip.weight": (1,)}, "ip_adapter", None),
        ({"conv_first.weight": (64, 3, 3, 3), "body.0.rdb1.conv1.weight": (1,)}, "upscaler", None),
        ({"something.else": (5, 5, 5)}, None, None),
    ],
)
def test_kind_and_family_are_read_off_the_names(
    tmp_path: Path, shapes: Shapes, kind: str | None, family: str | None
):
    found = told(put(tmp_path / "x.safetensors", shapes))
    assert (found.kind, found.base_model) == (kind, family)


def test_what_trainers_write_is_kept(tmp_path: Path):
    found = told(
        put(
            tmp_path / "style.safetensors",
            LORA,
            ss_network_module="networks.lora",
            ss_network_dim="32",
            ss_network_alpha="16.0",
            ss_base_model_version="sdxl_base_v1-0",
            ss_output_name="style-v3",
            ss_sd_model_name="base.safetensors",
            ss_dataset_dirs=json.dumps({"10_sks dog": {"n_repeats": 10, "img_count": 20}}),
            ss_tag_frequency=json.dumps({"10_sks dog": {"sks dog": 20, "park": 3, "fur": 20}}),
        )
    )
    assert found.base_model == "sdxl"
    assert found.metadata["rank"] == 4
    assert found.metadata["alpha"] == 16
    assert found.metadata["title"] == "style-v3"
    assert found.metadata["trained_on"] == "base.safetensors"
    assert found.metadata["trigger_words"] == ["sks dog", "fur"]


def test_modelspec_is_kept(tmp_path: Path):
    found = told(
        put(
            tmp_path / "m.safetensors",
            modelspec__architecture="stable-diffusion-xl-v1-base",
            modelspec__title="Dream",
            modelspec__author="Ann",
            modelspec__description="People.",
            modelspec__license="MIT",
            modelspec__tags="face, light",
            modelspec__prediction_type="v",
            modelspec__resolution="1024x1024",
            modelspec__trigger_phrase="in dream style, dreamy",
            modelspec__thumbnail="data:image/jpeg;base64,AAAA",
        )
    )
    assert (found.kind, found.base_model, found.licence) == ("checkpoint", "sdxl", "MIT")
    assert (found.description, found.tags) == ("People.", ("face", "light"))
    assert found.metadata["prediction_type"] == "v_prediction"
    assert found.metadata["trigger_words"] == ["in dream style", "dreamy"]
    assert found.metadata["preview"] == "modelspec.thumbnail"
    assert (found.metadata["author"], found.metadata["resolution"]) == ("Ann", "1024x1024")


def test_a_lora_says_by_modelspec_that_it_is_one(tmp_path: Path):
    file = put(
        tmp_path / "m.safetensors",
        {"a": (2, 2, 2)},
        modelspec__architecture="stable-diffusion-v1/lora",
    )
    assert (told(file).kind, told(file).base_model) == ("lora", "sd")


def test_what_the_operator_says_beside_a_file_counts_more(tmp_path: Path):
    file = put(tmp_path / "m.safetensors", modelspec__license="MIT")
    facts = {"licence": "CC-BY-NC-4.0", "base_model": "sdxl", "tags": ["a"], "description": "d"}
    (tmp_path / "m.json").write_text(json.dumps(facts))
    (tmp_path / "m.preview.png").write_bytes(b"x")
    found = told(file)
    assert (found.licence, found.base_model) == ("CC-BY-NC-4.0", "sdxl")
    assert (found.tags, found.description) == (("a",), "d")
    assert found.metadata["preview"] == "m.preview.png"


def test_half_a_pair_is_told_as_its_escape(tmp_path: Path):
    put(tmp_path / "m.safetensors", LORA, modelspec__title="cut \ud83d")
    half = json.dumps({"licence": "\ud83d", "tags": ["a\udc00"], "description": "\ud83d b"})
    (tmp_path / "m.json").write_text(half)
    found = told(tmp_path / "m.safetensors")
    assert (found.licence, found.tags, found.description) == ("\\ud83d", ("a\\udc00",), "\\ud83d b")
    assert "cut \\ud83d" in Described.model_validate_json(found.model_dump_json()).metadata.values()


def test_what_other_programs_leave_beside_a_file_is_read(tmp_path: Path):
    file = put(tmp_path / "m.safetensors", LORA)
    (tmp_path / "m.civitai.info").write_text(json.dumps({"trainedWords": ["abc"]}))
    assert told(file).metadata["trigger_words"] == ["abc"]


def folder(path: Path, config: dict[str, object], name: str = "config.json") -> Path:
    path.mkdir(parents=True)
    (path / name).write_text(json.dumps(config))
    put(path / "diffusion_pytorch_model.safetensors")
    return path


def test_folders_are_told_by_the_class_they_name(tmp_path: Path):
    pipeline = folder(
        tmp_path / "p", {"_class_name": "StableDiffusionXLPipeline"}, "model_index.json"
    )
    (pipeline / "scheduler").mkdir()
    (pipeline / "scheduler" / "scheduler_config.json").write_text(
        '{"prediction_type": "v_prediction"}'
    )
    (pipeline / "README.md").write_text(
        "---\nlicense: other\nlicense_name: flux-1-dev-non-commercial-license\n---\ntext"
    )
    found = told(pipeline)
    assert (found.kind, found.base_model) == ("checkpoint", "sdxl")
    assert found.licence == "flux-1-dev-non-commercial-license"
    assert found.metadata["prediction_type"] == "v_prediction"
    assert told(folder(tmp_path / "c", {"_class_name": "ControlNetModel"})).kind == "controlnet"
    assert told(folder(tmp_path / "v", {"_class_name": "AutoencoderKL"})).kind == "vae"
    adapter = tmp_path / "i"
    (adapter / "image_encoder").mkdir(parents=True)
    put(adapter / "ip.safetensors", {"a": (1, 1, 1)})
    assert told(adapter).kind == "ip_adapter"


def test_long_texts_and_lists_are_cut(tmp_path: Path):
    found = told(
        put(
            tmp_path / "m.safetensors",
            modelspec__description="d" * 10_000,
            modelspec__trigger_phrase=",".join(f"w{n}" for n in range(100)),
            ss_network_dim="1e400",
            ss_tag_frequency="[" * 5000,
        )
    )
    assert len(found.description) == LONGEST_TEXT
    assert len(found.metadata["trigger_words"]) == MOST_WORDS  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "header",
    ['{"a": 5}', '{"a": {"shape": "x"}}', '{"a": {"shape": [-1, true]}}', '{"__metadata__": [1]}'],
)
def test_headers_that_lie_are_read_without_harm(tmp_path: Path, header: str):
    file = tmp_path / "m.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    assert told(file).kind is None


def test_folders_tell_where_nothing_else_does():
    assert kind_by_folder(("models", "Lora", "old")) is ModelType.LORA
    assert kind_by_folder(("models", "upscale_models")) is ModelType.UPSCALER
    assert kind_by_folder(("models", "facerestore_models")) is ModelType.RESTORER
    assert kind_by_folder(("models",)) is None
