"""What the command says of a picture before it draws it again."""

import json
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from safelight.cli.remixing import read_changes
from safelight.errors import ContractMismatchError, InvalidFieldValueError, MissingFileError

TEXT = "a red heart\nSteps: 3, Sampler: Euler, CFG scale: 2, Seed: 11, Size: 63x64, ENSD: 31337"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    info = PngInfo()
    info.add_text("parameters", TEXT)
    Image.new("RGB", (8, 8)).save(tmp_path / "theirs.png", pnginfo=info)
    return tmp_path / "theirs.png"


def test_what_was_understood_is_told(file: Path, capsys: pytest.CaptureFixture[str]):
    assert read_changes(file, ["--steps", "5"], show=True, as_json=False) == {"steps": 5}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "made by AUTOMATIC1111"
    assert "steps\t3\t" in lines
    assert "\t\tENSD 31337: there is nothing like it here" in lines


def test_for_programs_it_is_one_object(file: Path, capsys: pytest.CaptureFixture[str]):
    read_changes(file, [], show=True, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"]["width"] == 63


def test_what_generate_would_refuse_is_refused_before_anything_runs(file: Path):
    with pytest.raises(InvalidFieldValueError, match="--width is 63"):
        read_changes(file, [], show=False, as_json=True)
    assert read_changes(file, ["--width", "64"], show=False, as_json=True) == {"width": 64}
    with pytest.raises(ContractMismatchError, match="did you mean --steps"):
        read_changes(file, ["--step", "5"], show=True, as_json=True)
    with pytest.raises(MissingFileError):
        read_changes(file.with_name("none.png"), [], show=True, as_json=True)
