"""The checkout as a whole: what imports what, who owns which name, what the README promises."""

import importlib
import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "diffusers", "transformers", "ncnn", "av", "boto3", "peft", "accelerate")
MOST_LINES = 400
FLOWS = sorted(path.stem for path in (CHECKOUT / "flows").glob("*.py") if path.stem != "__init__")


@pytest.mark.slow
def test_flows_import_without_any_engine():
    """Every flow has to import on a machine without a GPU, in a blink."""
    program = (
        "import importlib, json, sys\n"
        f"for name in {FLOWS!r}: importlib.import_module(f'flows.{{name}}')\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []


@pytest.mark.parametrize("package", ["flows", "presets", "tasks", "safelight"])
def test_no_other_distribution_owns_our_names(package: str):
    owners = packages_distributions().get(package, [])  # an editable install lists no packages
    assert set(owners) <= {"safelight"}
    assert Path(importlib.import_module(package).__file__ or "").is_relative_to(CHECKOUT)


def test_package_files_hold_a_docstring_and_nothing_more():
    for path in CHECKOUT.glob("*/**/__init__.py"):
        if path.parts[len(CHECKOUT.parts)] in ("flows", "presets", "tasks", "safelight"):
            assert re.fullmatch(r'""".+?"""\s*', path.read_text(), re.DOTALL), path


def test_modules_are_short():
    for package in ("examples", "flows", "presets", "tasks", "safelight", "training"):
        for path in (CHECKOUT / package).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= MOST_LINES, path


def test_ci_runs_what_the_readme_says():
    assert "make test" in (CHECKOUT / ".ci" / "run").read_text()
    readme = (CHECKOUT / "README.md").read_text()
    assert "make run" in readme
    assert "make test" in readme


def test_locks_hold_pins_and_no_address():
    for lock in (CHECKOUT / "requirements").glob("*.lock"):
        for line in lock.read_text().splitlines():
            assert line.startswith("#") or re.fullmatch(
                r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+-]+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line
            )
            assert "://" not in line


def test_every_pin_has_a_hash_and_nothing_is_installed_without():
    for lock in (CHECKOUT / "requirements").glob("*.lock"):
        text = re.sub(r"(?m)^#.*\n", "", lock.read_text())
        pins = re.split(r"\n(?=\S)", text.strip())
        assert pins
        assert all("--hash=sha256:" in pin for pin in pins), lock.name
    installers = [CHECKOUT / "scripts" / "setup.sh", *(CHECKOUT / "infra").rglob("Dockerfile.*")]
    for script in installers:
        text = script.read_text().replace("\\\n", " ")
        for line in text.splitlines():
            if re.search(r"pip .*(-r |--requirement)", line):
                assert "--require-hashes --only-binary :all:" in line, line
            if "--editable" in line:
                assert "--no-build-isolation" in line, line


def test_shipped_weights_and_data_stay_small():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    sizes = [(CHECKOUT / name).stat().st_size for name in listed if (CHECKOUT / name).is_file()]
    assert sum(sizes) < 40 * 2**20
