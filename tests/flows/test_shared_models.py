"""Two presets that draw with one model load it once."""

import shutil
from pathlib import Path

import pytest

from flows.cinematic_portrait_v1 import cinematic_portrait_v1
from flows.photoreal_portrait_v1 import photoreal_portrait_v1
from safelight.engines.diffusers.model import DiffusionModel
from safelight.engines.machine.loaded import forget_loaded, loaded_stats
from safelight.provenance.manifest import load_manifest
from safelight.settings import settings
from safelight.weights.places import FACTS, STARTER

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("server", "volume")]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The name of each model as it is loaded, which it still is."""
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
    settings.cache_clear()
    forget_loaded()
    seen: list[str] = []
    made = DiffusionModel.__init__

    def noting(one: DiffusionModel, *given: object, **named: object) -> None:
        made(one, *given, **named)
        seen.append(one.name)

    monkeypatch.setattr(DiffusionModel, "__init__", noting)
    return seen


def weights_of(result: object) -> set[str]:
    manifest = load_manifest(str(result.data["manifest"]))  # pyright: ignore
    return {each for stage in manifest.stages for each in stage.engine.weights}


def test_two_presets_that_share_a_base_model_load_it_once(loads: list[str]):
    first = photoreal_portrait_v1(prompt="a red heart", seed=1, quality="low")
    assert loads == ["starter"]
    hits = loaded_stats().hits
    second = cinematic_portrait_v1(prompt="a blue square", seed=2, quality="low")
    assert loads == ["starter"]
    assert loaded_stats().hits > hits
    assert weights_of(first) & weights_of(second)


def test_another_model_is_loaded_beside_it(loads: list[str], volume: Path):
    """So the count above would show it."""
    mine = volume / "models" / "mine"
    shutil.copytree(STARTER, mine)
    (mine / FACTS).unlink()  # it lists the bytes of each file
    index = mine / "model_index.json"
    index.write_text(index.read_text() + "\n")
    photoreal_portrait_v1(
        prompt="a red heart", seed=1, quality="low", overrides={"generate": {"model": "starter"}}
    )
    cinematic_portrait_v1(
        prompt="a red heart", seed=1, quality="low", overrides={"generate": {"model": "mine"}}
    )
    assert loads == ["starter", "mine"]
