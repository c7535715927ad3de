"""A training as a flow: pictures in, a LoRA by its name out, all of it on the run's page."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from safetensors import safe_open

from examples.untrained import build_untrained
from flows.generate import generate
from flows.train_lora import train_lora
from safelight.characters.versions import list_versions
from safelight.provenance.manifest import load_manifest
from safelight.store.store import current_store
from safelight.weights.registry import registry


def make_pictures(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for at in range(count):
        pixels = draw.integers(0, 256, (64, 64 + 32 * at, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{at}.png")
    (folder / "1.txt").write_text("a [trigger] house, red")
    return folder


FEW: dict[str, Any] = {
    "max_train_steps": 2,
    "network_dim": 2,
    "network_alpha": 2,
    "learning_rate": 0.01,
    "sample_every": 2,
    "resolution": 32,
    "bucket_reso_steps": 8,
}


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_pictures_become_a_lora_that_draws_by_its_name(volume: Path):
    model = build_untrained(volume / "models" / "tiny")
    facts = json.loads((model / "safelight.json").read_text())
    (model / "safelight.json").write_text(json.dumps({**facts, "recommended_steps": 2}))
    make_pictures(volume / "datasets" / "cat")
    made = train_lora(dataset="datasets/cat", trigger="zorbo", seed=5, **FEW)
    lora = made.data["lora"]
    assert lora["model"] == "zorbo-v1"
    found = registry().get_model("zorbo-v1", "lora")
    assert found.sha256 == lora["sha256"] == made.artifacts[-1].sha256
    assert found.metadata["trigger_words"] == ["zorbo"]
    config = list_versions("zorbo")[0].config
    assert config["captions"] == ["zorbo", "a zorbo house, red", "zorbo"]
    assert current_store().backend.list("cache/training/") == []  # the result has it all
    with safe_open(str(found.file_path), "pt") as file:
        told = file.metadata()
    assert json.loads(told["ss_bucket_info"])["buckets"]
    assert told["modelspec.trigger_phrase"] == "zorbo"

    ask = {"prompt": "a cat", "seed": 1, "steps": 1, "width": 64, "height": 64}
    drawn = generate(**ask, loras=[{"name": "zorbo-v1", "weight": 1}])
    (entry,) = load_manifest(str(drawn.data["manifest"])).stages
    assert lora["sha256"] in entry.engine.weights

    with get_client(sync_client=True) as client:
        run = UUID(str(made.data["flow_run_id"]))
        only = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        shown = {each.key: each for each in client.read_artifacts(artifact_filter=only)}
    page = str(shown["training"].data)
    assert "step 2 of 2, loss" in page
    assert page.count("data:image") == 3  # the curve, step 0 and the last samples
    manifest = load_manifest(str(made.data["manifest"]))
    assert [each.name for each in manifest.stages] == ["prepare", "train", "sample", "export"]
