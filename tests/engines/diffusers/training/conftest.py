"""A models folder with a random Stable Diffusion."""

import json
from pathlib import Path

import pytest

from examples.untrained import build_untrained


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once; nothing is written there."""
    folder = tmp_path_factory.mktemp("models")
    build_untrained(folder / "tiny")
    facts = folder / "tiny" / "safelight.json"
    told = {**json.loads(facts.read_text()), "recommended_steps": 2}  # samples take a moment
    facts.write_text(json.dumps(told))
    return folder


@pytest.fixture
def models(tiny_models: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as the models folder of this process."""
    from safelight.settings import settings

    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(tiny_models))
    settings.cache_clear()
    return tiny_models
