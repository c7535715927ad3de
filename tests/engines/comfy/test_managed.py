"""A ComfyUI that is started here: its environment, its death, its end with whoever started it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from safelight.cli.edge import guarded
from safelight.engines.comfy import managed as module
from safelight.engines.comfy import server
from safelight.engines.comfy.engine import ENGINE
from safelight.engines.comfy.launching import folder
from safelight.engines.comfy.managed import managed
from safelight.engines.comfy.records import running
from safelight.engines.machine import loaded
from safelight.errors import PipelineError
from safelight.settings import settings
from tests.engines.comfy.checkout import make_checkout
from tests.engines.comfy.test_comfy import request, run
from tests.prefect_pool import eventually

SECRET = "hunter2-of-the-store"


@pytest.fixture
def checkout(volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    made = make_checkout(tmp_path / "ComfyUI")
    monkeypatch.setattr(server, "PAUSES", (0.05, 0.1))
    for name, value in (
        ("SAFELIGHT_COMFY_DIR", str(made)),
        ("SAFELIGHT_COMFY_URL", ""),
        ("SAFELIGHT_DEVICE", "cpu"),
        ("SAFELIGHT_S3_SECRET_KEY", SECRET),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("PREFECT_API_AUTH_STRING", SECRET),
    ):
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    yield made
    managed().close()
    managed.cache_clear()
    loaded._neighbours.clear()


def log() -> str:
    (path,) = folder().glob("*.log")
    return path.read_text()


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.usefixtures("checkout")
def test_it_is_started_when_it_is_needed_with_an_environment_of_its_own(tmp_path: Path):
    assert ENGINE.can(request()) is None
    assert managed().pid is None  # nobody has needed it
    assert len(run(tmp_path / "a")) == 1
    pid = managed().pid
    assert pid is not None
    said = log()
    assert "Starting server" in said
    assert "cpu True" in said
    for name in ("SAFELIGHT", "AWS", "PREFECT", "PYTHONSAFEPATH"):
        assert name not in said
    assert SECRET not in " ".join(psutil.Process(pid).cmdline())
    assert SECRET not in str(psutil.Process(pid).environ())
    ((one,),) = [running()]
    assert (one.pid, one.url, one.name) == (pid, managed().url, "cpu")
    managed().close()
    assert gone(pid)
    assert running() == []


@pytest.mark.usefixtures("checkout")
def test_it_is_started_again_when_it_dies(tmp_path: Path):
    run(tmp_path / "a")
    before, url = managed().pid, managed().url
    assert before is not None
    os.kill(before, signal.SIGKILL)
    eventually(lambda: managed().pid not in (None, before))  # before anybody asks for it
    assert len(run(tmp_path / "b", "two")) == 1
    assert managed().url == url


@pytest.mark.usefixtures("checkout")
def test_it_is_left_dead_when_it_dies_again_and_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_DEATHS", 0)
    managed().require()
    pid = managed().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: running() == [])
    eventually(lambda: managed().pid is None)
    managed().require()
    assert managed().pid is not None


def test_one_that_does_not_start_says_why(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "MOST_DEATHS", 0)
    (checkout / "broken").touch()
    with pytest.raises(
        PipelineError, match=r"ended as it starts: .*no module named torch"
    ) as failed:
        run(tmp_path / "a")
    assert failed.value.code == "ENGINE_OFFLINE"
    health = ENGINE.health_check()
    assert health is not None
    assert health.code == "ENGINE_OFFLINE"


@pytest.mark.usefixtures("checkout")
def test_its_memory_is_given_back_before_another_model_is_loaded(tmp_path: Path):
    run(tmp_path / "a")
    loaded.loaded(("a model", "one"), lambda: "model", 1)
    loaded.loaded(("a model", "two"), lambda: "model", 1)
    assert log().count("asked to free [('free_memory', True), ('unload_models', True)]") == 1
    run(tmp_path / "b", "two")
    loaded.loaded(("a model", "two"), lambda: "model", 1)  # it is in memory: nothing is needed
    assert log().count("asked to free") == 1
    loaded.forget_loaded()


OWNER = """\
import sys, time
from safelight.engines.comfy.managed import managed
managed().require()
print(managed().pid, flush=True)
time.sleep(60)
"""


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_process_that_started_it(number: int):
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert psutil.pid_exists(pid)
    owner.send_signal(number)
    owner.wait()
    owner.stdout.close()
    eventually(lambda: gone(pid))


@pytest.mark.usefixtures("checkout")
def test_one_that_is_started_by_hand_is_used_instead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert guarded(["comfy", "status"]) == 0
    assert "None runs" in capsys.readouterr().out
    assert guarded(["comfy", "start"]) == 0
    try:
        (one,) = running()
        assert guarded(["comfy", "start"]) == 0
        assert "runs already" in capsys.readouterr().out
        run(tmp_path / "a")
        assert managed().pid is None
        assert guarded(["comfy", "status"]) == 0
        assert "started by hand: 0.3.64 on cpu, 0 running, 0 waiting" in capsys.readouterr().out
        assert guarded(["comfy", "logs", "--lines", "9"]) == 0
        assert "Starting server" in capsys.readouterr().out
    finally:
        assert guarded(["comfy", "stop"]) == 0
    assert gone(one.pid)
    assert guarded(["comfy", "logs", "--name", "none"]) == 1


WRONG = {
    "no checkout": ("SAFELIGHT_COMFY_DIR", "/nowhere", "DEPENDENCY_MISSING", "no main.py"),
    "no python": ("SAFELIGHT_COMFY_PYTHON", "/nowhere", "DEPENDENCY_MISSING", "no file"),
    "our words": ("SAFELIGHT_COMFY_OPTIONS", "--port=1", "INVALID_FIELD_VALUE", "--port=1"),
    "half a quote": ("SAFELIGHT_COMFY_OPTIONS", "--a 'b", "INVALID_FIELD_VALUE", "quot"),
}


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_started_is_refused_at_once(case: str, monkeypatch: pytest.MonkeyPatch):
    name, value, code, said = WRONG[case]
    monkeypatch.setenv(name, value)
    settings.cache_clear()
    refused = ENGINE.can(request())
    assert refused is not None
    assert refused.code == code
    assert said in refused.problem
