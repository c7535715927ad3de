"""`safelight characters` and `safelight train`: what they print, and what they refuse."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safelight.characters.versions import claimed, keep
from safelight.cli.edge import guarded
from safelight.store.store import current_store


def said(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    assert guarded([*words]) == status
    captured = capsys.readouterr()
    return captured.out if status == 0 else captured.err


def test_a_character_by_the_command(
    volume: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert "CONSENT_MISSING" in said(capsys, "characters", "create", "Ada", status=1)
    said(capsys, "characters", "create", "Zorbo", "--kind", "thing", "--trigger", "zorbo")
    rough = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    picture = tmp_path / "a.png"
    Image.fromarray(rough).resize((96, 96), Image.Resampling.NEAREST).save(picture)
    assert "a.png: " in said(capsys, "characters", "add", "Zorbo", str(picture))
    assert "INVALID_FIELD_VALUE" in said(
        capsys, "characters", "add", "Zorbo", str(picture), status=1
    )
    (told,) = json.loads(said(capsys, "characters", "list", "--json"))
    made = current_store().put(b"weights", "application/vnd.safetensors")
    keep(told["id"], claimed(told["id"], "run"), made, {"model": "starter"})
    shown = said(capsys, "characters", "show", "Zorbo")
    assert f"LoRA: {told['id']}-v1" in shown
    assert "picture: " in shown
    assert f"{told['id']}-v1" in said(capsys, "train", "list", "Zorbo")
    file = tmp_path / "zorbo.zip"
    said(capsys, "characters", "export", "Zorbo", str(file))
    assert file.stat().st_size > 200
    said(capsys, "characters", "update", "Zorbo", "--rename", "Zorba")
    assert "is deleted for Zed" in said(capsys, "characters", "delete", "Zorba", "--by", "Zed")
    assert "Zed" in said(capsys, "characters", "deleted")
    assert json.loads(said(capsys, "characters", "list", "--json")) == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("lora", "nowhere", "--trigger", "x"), "FILE_NOT_FOUND"),
        (("lora", ".", "--character", "Ada"), "INVALID_FIELD_VALUE"),
        (("lora", "--trigger", "x", "--max-train-steps", "0"), "INVALID_FIELD_VALUE"),
        (("lora", "--trigger", "x", "--rank", "3"), "CONTRACT_MISMATCH"),
        (("compare", "x", "v1"), "INVALID_FIELD_VALUE"),
        (("compare", "x", "v1", "two"), "INVALID_FIELD_VALUE"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_run(
    volume: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: str
):
    assert code in said(capsys, "train", *words, status=1)


def test_the_help_names_the_options(capsys: pytest.CaptureFixture[str]):
    shown = said(capsys, "train", "lora", "--help")
    for option in ("--max-train-steps", "--network-dim", "--class-prompts", "--character"):
        assert option in shown
