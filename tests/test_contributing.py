"""CONTRIBUTING.md: its preset, stage and engine work when they are put where it says."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGES = ("flows", "presets", "tasks", "safelight")
FILE = re.compile(r"^`([a-z0-9_/]+\.py)`:\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAM = """
import json, sys
from safelight.store.results import register_results
register_results()
from flows.mirrored_v1 import mirrored_v1
from presets.base.catalog import preset_ids
from safelight.engines.choosing import engines
from safelight.provenance.manifest import load_manifest
from safelight.store.store import current_store
from tasks.base.catalog import stages

result = mirrored_v1(image=sys.argv[1], quality="low")
manifest = load_manifest(result.artifacts[-1].uri)
print(json.dumps({
    "files": [sys.modules[name].__file__ for name in ("flows.mirrored_v1", "safelight.errors")],
    "found": ["mirrored_v1" in preset_ids(), "mirror" in stages(), "nearest" in engines()],
    "made": str(current_store().fetch(result.artifacts[-1])),
    "served": [[entry.stage_type, entry.engine.engine_id, entry.origin]
               for entry in manifest.stages],
}))
"""


@pytest.mark.slow
def test_a_preset_a_stage_and_an_engine_need_their_own_files_alone(
    tmp_path: Path, prefect_server: str
):
    files = FILE.findall((CHECKOUT / "CONTRIBUTING.md").read_text())
    assert len(files) == 4
    for package in PACKAGES:
        shutil.copytree(
            CHECKOUT / package,
            tmp_path / package,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    for name, text in files:
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(text)
    for tool in (["ruff", "check"], ["ruff", "format", "--check"]):
        options = ["--config", str(CHECKOUT / "pyproject.toml"), *(name for name, _ in files)]
        subprocess.run([sys.executable, "-m", *tool, *options], cwd=tmp_path, check=True)
    picture = tmp_path / "volume" / "uploads" / "small.png"
    picture.parent.mkdir(parents=True)
    pixels = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).save(picture)
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "VOLUME_ROOT": str(tmp_path / "volume"),
        "PREFECT_API_URL": prefect_server,
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(picture)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    ours = ("flows/mirrored_v1.py", "safelight/errors.py")
    assert said["files"] == [str(tmp_path / name) for name in ours]
    assert said["found"] == [True, True, True]
    assert said["served"] == [["mirror", "numpy", "edits"], ["upscale", "nearest", "enhances"]]
    made = np.asarray(Image.open(said["made"]))
    assert np.array_equal(made, pixels[:, ::-1].repeat(2, 0).repeat(2, 1))
