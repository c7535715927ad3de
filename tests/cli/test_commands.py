"""The command as people run it: a process, an embedded server, real files."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from prefect.settings import PREFECT_API_URL, temporary_settings

from safelight.cli.edge import guarded
from tests.engines.spandrel_nets.tiny_upscalers import compact, save
from tests.prefect_database import put_database

CHECKOUT = Path(__file__).resolve().parents[2]
COMMAND = [str(Path(sys.executable).parent / "safelight")]


def run(volume: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    environment |= {"VOLUME_ROOT": str(volume), "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [*COMMAND, *words],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.fixture
def prepared(tmp_path: Path, database: Path) -> Path:
    """A volume whose embedded server need not make its tables."""
    put_database(database, tmp_path / "volume")
    return tmp_path / "volume"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands run in this process, in the checkout, with nothing configured."""
    monkeypatch.chdir(CHECKOUT)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with temporary_settings({PREFECT_API_URL: None}):
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_presets_are_listed_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    listed = run(tmp_path, "presets", "list")
    assert listed.returncode == 0
    assert "photoreal_portrait_v1" in listed.stdout
    assert guarded(["presets", "show", "photoreal_portrait_v1"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["levels"]["low"]["generate"]["steps"] == 25
    assert shown["levels"]["pro"]["upscale"]["upscale_factor"] == 2


@pytest.mark.slow
def test_a_preset_runs_is_found_again_and_replays(tmp_path: Path, prepared: Path):
    with Image.open(CHECKOUT / "examples" / "astronaut.png") as photo:
        photo.resize((128, 128)).save(tmp_path / "small.png")
    words = ["--image", str(tmp_path / "small.png"), "--quality", "low"]
    output = tmp_path / "output"
    first = run(prepared, "run", "upscale_denoise_image_v1", *words, "-o", str(output))
    assert first.returncode == 0, first.stderr
    (manifest,) = (prepared / "outputs" / "manifests").glob("*.json")
    assert len(list(output.glob("*.png"))) == 1  # the result, and apart from it what it was made of
    assert len(list((output / "stages").rglob("*.png"))) == 1
    assert [path.name for path in output.glob("*.png")] == ["small.png"]
    again = run(prepared, "replay", str(manifest))
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("yes") == 2


@pytest.mark.soak
def test_an_upscaler_of_the_operator_is_listed_and_named_on_the_command_line(
    tmp_path: Path, prepared: Path
):
    save(compact(2), prepared / "models" / "upscale_models" / "2x my net.pth")
    listed = run(prepared, "models", "scan")
    assert listed.returncode == 0, listed.stderr
    listed = run(prepared, "models", "list", "--type", "upscaler")
    assert "2x my net" in listed.stdout
    with Image.open(CHECKOUT / "examples" / "astronaut.png") as photo:
        photo.resize((96, 80)).save(tmp_path / "small.png")
    words = ["--image", str(tmp_path / "small.png"), "--quality", "low"]
    changed = json.dumps({"upscale": {"model": "2x my net"}})
    named = ["--overrides", changed, "-o", str(tmp_path / "output")]
    done = run(prepared, "run", "upscale_denoise_image_v1", *words, *named)
    assert done.returncode == 0, done.stderr
    (made,) = (tmp_path / "output").glob("*.png")
    with Image.open(made) as larger:
        assert larger.size == (192, 160)


@pytest.mark.usefixtures("here", "volume")
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["presets", "show", "nothing_v1"], "CONTRACT_MISMATCH"),
        (["enhance", "no-such-file.png"], "FILE_NOT_FOUND"),
        (["enhance", "LICENSE"], "INVALID_FIELD_VALUE"),
        (["pipeline", "no-such-file.json"], "FILE_NOT_FOUND"),
        (["run", "../../etc"], "CONTRACT_MISMATCH"),
        (["replay", "no-such-run"], "FILE_NOT_FOUND"),
    ],
)
def test_mistakes_are_answered_with_a_code_and_a_remedy(
    capsys: pytest.CaptureFixture[str], words: list[str], code: str
):
    assert guarded(words) == 1
    said = capsys.readouterr().err
    assert code in said
    assert "Fix: " in said
    assert "Traceback" not in said


@pytest.mark.soak
@pytest.mark.usefixtures("here", "volume", "prepared")
def test_a_flow_that_refuses_its_parameters_says_so(capsys: pytest.CaptureFixture[str]):
    assert guarded(["interpolate", "examples/box.mp4", "--target-fps", "24"]) == 1
    said = capsys.readouterr().err
    assert "[INVALID_FIELD_VALUE] target_fps 24 is not above source_fps 30" in said


@pytest.mark.slow
def test_the_doctor_names_what_is_there(tmp_path: Path):
    done = run(tmp_path, "doctor", "--json")
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert findings["store"]["level"] == "ok"
    assert findings["weights of upscale"]["level"] == "ok"
    assert findings["prefect server"]["level"] == "ok"


@pytest.mark.slow
def test_ctrl_c_stops_the_run_and_leaves_no_half_file(prepared: Path):
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    environment |= {"VOLUME_ROOT": str(prepared), "COLUMNS": "200"}
    process = subprocess.Popen(
        [*COMMAND, "interpolate", "examples/box.mp4", "--target-fps", "240"],
        cwd=CHECKOUT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    scratch = prepared / "cache" / "scratch"
    while process.poll() is None and not list(scratch.glob("work-*/.part-made")):
        time.sleep(0.05)  # the pytest timeout bounds this
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors
    (manifest,) = (prepared / "outputs" / "manifests").glob("*.json")
    assert [entry["status"] for entry in json.loads(manifest.read_text())["stages"]] == [
        "cancelled"
    ]
    assert not list(scratch.glob("work-*"))
    assert not list((prepared / "outputs").rglob("*.mp4"))
