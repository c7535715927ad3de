"""Forms name the models that there were when they were made."""

import inspect
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from flows.running.signature import documented
from safelight.settings import reload_settings
from safelight.weights.offered import MOST, VARIABLE, offered_models
from tests.weights.files import LORA, put


def body(
    prompt: Annotated[str, Field(description="What it shows.")],
    model: Annotated[str | None, Field(description="Its name.")] = None,
    loras: Annotated[tuple[str, ...], Field(description="Applied together.")] = (),
) -> None:
    """Draw."""


def test_the_help_texts_of_models_name_those_of_the_registry(
    volume: Path, monkeypatch: pytest.MonkeyPatch
):
    reload_settings()
    assert "There are" not in documented(body)
    put(volume / "models" / "dream.safetensors")
    for number in range(MOST + 2):
        put(volume / "models" / "loras" / f"l{number:02}.safetensors", LORA, fill=number)
    for name, value in offered_models().items():
        monkeypatch.setenv(name, value)
    lines = inspect.cleandoc(documented(body)).splitlines()
    assert "    model: Its name. There are: dream." in lines
    assert lines[-1].endswith("l22, l23 and more.")
    assert "    prompt: What it shows." in lines


@pytest.mark.parametrize("value", ["", "{broken", "{}"])
def test_without_names_the_texts_are_as_ever(monkeypatch: pytest.MonkeyPatch, value: str):
    before = documented(body)
    monkeypatch.setenv(VARIABLE, value)
    assert documented(body) == before


def test_a_registry_that_fails_keeps_no_deployment_from_being_made(volume: Path):
    volume.mkdir(parents=True)
    (volume / "registry").write_text("a file")
    assert offered_models() == {}
