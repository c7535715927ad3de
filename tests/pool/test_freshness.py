"""Whether imported code is still what lies on disk."""

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    modules = ImportedModules()
    modules.remember(since=0.5)
    assert modules.changed() == str(module)


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
