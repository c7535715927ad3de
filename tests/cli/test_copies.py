"""Copies that a command makes: looked at before anything runs, and named as asked."""

import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from safelight.cli.copies import Copies, Wanted
from safelight.cli.edge import guarded
from safelight.cli.inputs import given_file
from safelight.errors import MissingRequiredFieldError, PipelineError
from tests.cli.test_commands import here, prepared, run  # noqa: F401

TABLE = "File Name;prompt;seed\n" + "".join(
    f"{name};a red heart;{seed}\n"
    for seed, name in enumerate(["Tasse: rot", "Tasse: blau", "tasse- ROT", "Krüge/0.5 l"], 1)
)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--names", "{prmpt}", "-o", "out"], "CONTRACT_MISMATCH", "did you mean {prompt}?"),
        (["--names", "{step}", "-o", "out"], "CONTRACT_MISMATCH", "did you mean {steps}?"),
        (["--names", "../{prompt}", "-o", "out"], "INVALID_FIELD_VALUE", "--names"),
        (["--names", "{prompt}"], "MISSING_REQUIRED_FIELD", "add --output"),
    ],
)
@pytest.mark.usefixtures("here", "volume")
def test_a_template_is_refused_before_a_server_starts(
    words: list[str], code: str, said: str, volume: Path, capsys: pytest.CaptureFixture[str]
):
    assert guarded(["image", "generate", "a cat", *words]) == 1
    shown = capsys.readouterr().err
    assert code in shown
    assert said in shown
    assert not (volume / "cache" / "prefect").exists()


@pytest.mark.usefixtures("volume")
def test_a_batch_is_refused_for_its_zip_before_its_file_is_read(tmp_path: Path):
    (tmp_path / "mine.zip").write_bytes(b"mine")
    for wanted in (
        Wanted(None, None, tmp_path / "mine.zip"),
        Wanted(None, None, tmp_path / "none" / "x.zip"),
        Wanted(tmp_path / "mine.zip", None),
        Wanted(tmp_path, "{nothing}"),
    ):
        with pytest.raises(PipelineError):
            Copies(wanted, "generate")
    with pytest.raises(MissingRequiredFieldError, match="--names"):
        Copies(Wanted(None, "{prompt}"), "generate")


def test_the_file_that_was_typed_gives_the_name():
    assert given_file({"image": "/home/me/cat.png"}) == "cat.png"
    assert given_file({"video": "clip.mp4", "audio": "a.wav"}) == "clip.mp4"
    assert given_file({"image": "store:uploads/ab/x.png"}) == ""
    assert given_file({"prompt": "a cat"}) == ""


@pytest.mark.slow
@pytest.mark.soak  # the README has its like
def test_a_spreadsheet_becomes_named_pictures_in_a_zip(tmp_path: Path, prepared: Path):  # noqa: F811
    table, file, out = tmp_path / "products.csv", tmp_path / "pictures.zip", tmp_path / "out"
    table.write_text(TABLE)
    drawn = ["--width", "64", "--height", "64", "--guidance-scale", "2", "--steps", "2"]
    words = ["batch", str(table), "--flow", "generate", *drawn, "--zip", str(file)]
    done = run(prepared, *words, "-o", str(out), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["zip"] == str(file)
    names = ["Tasse- rot.png", "Tasse- blau.png", "tasse- ROT-2.png", "Krüge/0.5 l.png"]
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == names
        with archive.open(names[0]) as opened, Image.open(opened) as picture:
            assert picture.size == (64, 64)
    assert [place for one in told["places"] for place in one["places"]] == [
        str(out / name) for name in names
    ]
    assert all((out / name).is_file() for name in names)
    more = ["--zip", str(file), "-o", str(out), "--names", "{preset}/{seed:02}"]
    again = run(prepared, "export", told["flow_run_id"], *more)
    assert again.returncode == 0, again.stderr
    with zipfile.ZipFile(file) as archive:  # of the same batch, so it takes the other's place
        assert archive.namelist() == [f"generate/{seed:02}.png" for seed in range(1, 5)]
    assert again.stdout.splitlines()[:1] == [str(out / "generate" / "01.png")]
    unknown = run(prepared, "export", "none", "--zip", str(file))
    assert unknown.returncode == 1
    assert "FILE_NOT_FOUND" in unknown.stderr
    nowhere = run(prepared, "export", told["flow_run_id"])
    assert "MISSING_REQUIRED_FIELD" in nowhere.stderr
