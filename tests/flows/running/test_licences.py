"""A manifest says which licences of its models are not known, or forbid commercial use."""

import json
from pathlib import Path

import pytest

from examples.untrained import build_untrained
from flows.generate import generate
from flows.running.recorded import run_inline
from safelight.provenance.manifest import StageEntry, load_manifest
from safelight.settings import reload_settings
from safelight.weights.places import FACTS

pytestmark = pytest.mark.usefixtures("server", "volume")
ASKED = {"prompt": "a cat", "steps": 1, "width": 64, "height": 64, "seed": 1}


def drawn(model: str | None, name: str) -> StageEntry:
    parameters = {**ASKED, "model": model}
    manifest = run_inline(generate, parameters, name, lambda stage, done, total: None)
    assert manifest.success, manifest.error
    (entry,) = load_manifest(manifest.key).stages
    return entry


def test_a_run_says_what_its_model_does_not_allow_also_when_its_result_was_there(volume: Path):
    reload_settings()
    folder = volume / "models" / "portraits" / "untrained"
    build_untrained(folder)
    facts = json.loads((folder / FACTS).read_text())
    (folder / FACTS).write_text(json.dumps({**facts, "licence": "CC-BY-NC-4.0", "files": None}))
    first = drawn("portraits/untrained", "first")
    again = drawn("untrained", "again")
    assert (first.status, first.parameters["model"]) == ("done", "portraits/untrained")
    for entry in (first, again):
        assert entry.licences == (
            "the licence of model untrained, CC-BY-NC-4.0, forbids commercial use",
        )
    del facts["licence"]
    (folder / FACTS).write_text(json.dumps({**facts, "files": None}))
    (said,) = drawn("untrained", "unknown").licences
    assert said.startswith("the licence of model untrained is not known")
    assert drawn("starter", "starter").licences == ()
