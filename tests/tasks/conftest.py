"""A tiny real model for the stages that draw."""

from collections.abc import Callable
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


@pytest.fixture(scope="session")
def built_videos() -> dict[str, Path]:
    """Models folders with one tiny video model each, by its family."""
    return {}


@pytest.fixture
def video_models(
    built_videos: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    volume: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], str]:
    """Makes a tiny video model of a family the only one of the models folder."""
    from safelight.settings import settings
    from tests.engines.diffusers.tiny_videos import build

    def only(kind: str) -> str:
        if kind not in built_videos:
            built_videos[kind] = tmp_path_factory.mktemp("models")
            build(kind, built_videos[kind] / "video" / f"tiny-{kind}")
        monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
        monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(built_videos[kind]))
        settings.cache_clear()
        return kind

    return only
