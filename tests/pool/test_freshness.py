"""Whether imported code is still what lies on disk."""

import importlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from safelight.pool import freshness
from safelight.pool.freshness import ImportedModules


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "elsewhere.py"
    path.write_text("VALUE = 1\n")
    os.utime(path, (1, 1))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("elsewhere")
    yield path
    del sys.modules["elsewhere"]


def test_a_changed_or_missing_module_is_named(module: Path):
    modules = ImportedModules()
    modules.remember(time.time())
    assert modules.changed() is None
    os.utime(module, (2, 2))
    assert modules.changed() == str(module)
    os.utime(module, (1, 1))
    assert modules.changed() is None
    module.unlink()
    assert modules.changed() == str(module)


def test_a_module_changed_while_it_was_imported_counts_as_changed(module: Path):
    now = time.time()
    os.utime(module, (now + 60, now + 60))
    modules = ImportedModules()
    modules.remember(since=now)
    assert modules.changed() == str(module)


@pytest.mark.soak
def test_the_libraries_that_stages_use_do_not_look_changed():
    """Some of them, torch too, give modules without a file the name of one."""
    code = (
        "import time; from safelight.pool.freshness import ImportedModules;"
        "modules = ImportedModules(); began = time.time();"
        "import torch, diffusers, transformers, av, ncnn, boto3, prefect.flow_engine;"
        "modules.remember(began); print(modules.changed())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "None"


@pytest.mark.parametrize("name", ["{}-flows", "{}2", "{}/beside"])
def test_flows_beside_this_project_are_watched(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A folder whose name begins like the checkout's is another one, and so is one in it."""
    checkout = tmp_path / "prj"
    for package in ("flows", "presets", "tasks", "safelight"):
        (checkout / package).mkdir(parents=True)
        (checkout / package / "__init__.py").touch()
    source = Path(freshness.__file__).parents[1]
    shutil.copytree(source / "pool", checkout / "safelight" / "pool")
    folder = Path(name.format(checkout))
    folder.mkdir()
    module = folder / "neighbour.py"
    module.touch()
    os.utime(module, (1, 1))
    code = (
        "import time, os, neighbour, flows; from safelight.pool.freshness import ImportedModules;"
        "modules = ImportedModules(); modules.remember(time.time()); print(modules.changed());"
        "os.utime(neighbour.__file__, (2, 2)); print(modules.changed());"
        "os.utime(flows.__file__, (2, 2)); os.utime(neighbour.__file__, (1, 1));"
        "print(modules.changed())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{checkout}:{folder}"},
        capture_output=True,
        text=True,
        check=True,
    )
    # those of the project itself are watched by their stamps
    assert done.stdout.split() == ["None", str(module), "None"]
