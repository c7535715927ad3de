"""What there is to choose from, what of a request is refused before a job exists, uploads."""

import hashlib
import io
import json
import shutil
import warnings

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from presets.base.catalog import preset_ids
from safelight.settings import settings
from safelight.weights.registry import registry
from tests.engines.comfy.comfy_server import GRAPH
from tests.gateway.conftest import Alone


def test_presets_are_filtered(alone: Alone):
    every = alone.ask("GET", "/api/presets").json()
    assert [card["id"] for card in every["presets"]] == list(preset_ids())
    assert every["total"] == len(preset_ids())
    card = every["presets"][0]
    one = {"category": card["category"], "engine": card["engines"][0]}
    found = alone.ask("GET", "/api/presets", params=one).json()["presets"]
    assert card in found
    assert all(each["category"] == card["category"] for each in found)
    assert all(card["engines"][0] in each["engines"] for each in found)
    for wrong in ({"category": "songs"}, {"engine": "abacus"}):
        answer = alone.ask("GET", "/api/presets", params=wrong)
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_FIELD_VALUE")


@pytest.mark.parametrize("preset_id", preset_ids())
def test_a_preset_says_what_it_takes(alone: Alone, preset_id: str):
    known = alone.ask("GET", f"/api/presets/{preset_id}").json()
    assert known["id"] == preset_id
    assert set(known["required_inputs"]) <= known["parameters"]["properties"].keys()
    assert known["quality_levels"] == list(known["levels"])
    assert known["steps"]
    for step in known["steps"]:
        for quality in step["when"]:
            assert known["levels"][quality][step["name"]]


def test_operations_say_what_they_take(alone: Alone):
    found = alone.ask("GET", "/api/operations").json()["operations"]
    taken = {each["id"]: each["parameters"]["properties"].keys() for each in found}
    assert taken.keys() == {"image_generation", "image_inpaint", "image_transform"}
    assert {"image", "mask", "prompt"} <= taken["image_inpaint"]


def test_models_are_listed_by_type(alone: Alone):
    folder = alone.volume / "models" / "loras"
    folder.mkdir(parents=True)
    save_file(
        {"lora_unet.lora_down.weight": np.ones((4, 8), np.float32)}, folder / "ink.safetensors"
    )
    registry().scan(hashes=False)
    found = alone.ask("GET", "/api/models", params={"model_type": "lora"}).json()
    assert [model["name"] for model in found["models"]] == ["ink"]
    assert alone.ask("GET", "/api/models", params={"model_type": "checkpoint"}).json()["total"] == 0


REFUSED = [
    ("generate", {}, "MISSING_REQUIRED_FIELD", "prompt"),
    ("generate", {"prompt": "x", "steps": 0}, "INVALID_FIELD_VALUE", "steps"),
    ("generate", {"prompt": "x", "stepps": 3}, "CONTRACT_MISMATCH", "stepps"),
    ("generate", {"prompt": "a\0b"}, "INVALID_FIELD_VALUE", "U+0000"),
    ("generate", {"prompt": {"__prefect_kind": "none"}}, "INVALID_FIELD_VALUE", "__prefect_kind"),
    ("imagegeneration", {}, "CONTRACT_MISMATCH", "image_generation"),
    ("preset", {}, "CONTRACT_MISMATCH", "workflow"),
    ("../flows", {}, "CONTRACT_MISMATCH", "workflow"),
    ("watch", {}, "CONTRACT_MISMATCH", "workflow"),
    (
        "photoreal_portrait_v1",
        {"prompt": "x", "overrides": {"generate": {"stepps": 3}}},
        "CONTRACT_MISMATCH",
        "stepps",
    ),
    (
        "photoreal_portrait_v1",
        {"prompt": "x", "overrides": {"grain": {"amount": [{"__prefect_kind": "jinja"}]}}},
        "INVALID_FIELD_VALUE",
        "__prefect_kind",
    ),
    (
        "photoreal_portrait_v1",
        {"prompt": "x", "identity_reference": ["uploads/face.png"]},
        "CONSENT_MISSING",
        "consent_given",
    ),
    (
        "pipeline",
        {"stages": [{"stage_type": "sing", "name": "a"}]},
        "CONTRACT_MISMATCH",
        "sing",
    ),
]


@pytest.mark.parametrize(("workflow", "parameters", "code", "named"), REFUSED)
def test_a_job_that_would_be_refused_is_never_made(
    alone: Alone, workflow: str, parameters: dict, code: str, named: str
):
    body = {"workflow": workflow, "parameters": parameters}
    answer = alone.ask("POST", "/api/jobs", json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (400, code), answer.text
    assert named in answer.json()["message"]
    assert answer.json()["remediation"][0]


@pytest.mark.parametrize("key", ["", "with space", "x" * 201, "tab\tkey"])
def test_a_key_that_is_none_is_refused(alone: Alone, key: str):
    body = {"workflow": "generate", "parameters": {"prompt": "x"}}
    answer = alone.ask("POST", "/api/jobs", json=body, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_FIELD_VALUE")
    assert "Idempotency-Key" in answer.json()["message"]


def picture() -> bytes:
    kept = io.BytesIO()
    Image.radial_gradient("L").resize((48, 40)).save(kept, "PNG")
    return kept.getvalue()


def test_a_picture_is_kept_by_its_content(alone: Alone):
    data = picture()
    sha256 = hashlib.sha256(data).hexdigest()
    answer = alone.ask(
        "POST",
        "/api/uploads",
        params={"sha256": sha256},
        content=data,
        headers={"Content-Type": "image/png"},
    )
    assert answer.status_code == 201, answer.text
    kept = answer.json()
    assert (kept["id"], kept["media_type"], kept["size_bytes"]) == (sha256, "image/png", len(data))
    assert (kept["width"], kept["height"]) == (48, 40)
    assert (alone.volume / kept["uri"].removeprefix("store:")).read_bytes() == data


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "INVALID_FIELD_VALUE"),
        (b"hello", "INVALID_FIELD_VALUE"),
        (picture()[:-30], "INVALID_FIELD_VALUE"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "INVALID_FIELD_VALUE"),
    ],
    ids=["empty", "text", "cut", "svg"],
)
def test_what_is_no_picture_is_not_kept(alone: Alone, content: bytes, code: str):
    before = sorted(alone.volume.glob("uploads/**/*"))
    answer = alone.ask(
        "POST", "/api/uploads", content=content, headers={"Content-Type": "image/png"}
    )
    assert (answer.status_code, answer.json()["error_code"]) == (400, code), answer.text
    assert str(alone.volume) not in answer.text
    assert sorted(alone.volume.glob("uploads/**/*")) == before
    assert not list(alone.volume.glob("cache/scratch/work-*"))


def test_bytes_that_changed_on_the_way_are_not_kept(alone: Alone):
    for wrong, status, code in (
        ("0" * 64, 400, "CHECKSUM_MISMATCH"),
        ("zz", 400, "INVALID_FIELD_VALUE"),
    ):
        answer = alone.ask(
            "POST",
            "/api/uploads",
            params={"sha256": wrong},
            content=picture() + b" ",
            headers={"Content-Type": "application/octet-stream"},
        )
        assert (answer.status_code, answer.json()["error_code"]) == (status, code)


def test_every_answer_is_described(alone: Alone):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        described = alone.api.openapi()
    assert alone.ask("GET", "/api/openapi.json").json() == described
    for path, methods in described["paths"].items():
        for method, route in methods.items():
            said = route["responses"]
            assert "422" not in said, path
            for kind in ("4XX", "5XX"):
                schema = said[kind]["content"]["application/json"]["schema"]
                assert schema["$ref"].endswith("/Problem"), (method, path)
            assert route["description"]


def test_workflows_of_comfyui_are_listed_with_their_forms(alone: Alone):
    folder = settings().volume_root / "workflows"
    folder.mkdir(parents=True)
    (folder / "draw.json").write_text(json.dumps(GRAPH))
    (folder / "odd.json").write_text("{")
    try:
        found = alone.ask("GET", "/api/workflows").json()["workflows"]
        draw, odd = found
        assert (draw["id"], draw["name"], draw["error"]) == ("workflow_draw", "draw", "")
        assert {"prompt", "seed"} <= draw["parameters"]["properties"].keys()
        assert odd["error"].startswith("[INVALID_FIELD_VALUE]")
        job = {"workflow": "workflow_draw", "parameters": {"steps": "many"}}
        refused = alone.ask("POST", "/api/jobs", json=job)
        assert (refused.status_code, refused.json()["error_code"]) == (400, "INVALID_FIELD_VALUE")
        job = {"workflow": "workflow_none", "parameters": {}}
        refused = alone.ask("POST", "/api/jobs", json=job)
        assert refused.json()["error_code"] == "CONTRACT_MISMATCH"
    finally:
        shutil.rmtree(folder)
