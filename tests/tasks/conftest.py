"""A tiny real model for the stages that draw."""

from pathlib import Path

import pytest

from examples.untrained import build_untrained


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Stable Diffusion in the diffusers layout."""
    return build_untrained(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def tiny_model(tiny_folder: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tiny model as the only one of the models folder; its name."""
    from safelight.settings import settings

    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(tiny_folder.parent))
    settings.cache_clear()
    return "tiny"
