"""A checkout that starts as ComfyUI does, with the recorded server in it."""

import sys
from pathlib import Path

MAIN = """\
import argparse, os, sys, time
from beside import said  # as ComfyUI imports what lies beside its main.py
sys.path.insert(0, {root!r})
from tests.engines.comfy.comfy_server import Comfy, serve
words = argparse.ArgumentParser()
words.add_argument("--port", type=int)
words.add_argument("--cpu", action="store_true")
known, _ = words.parse_known_args()
print(said, "port", known.port, "cpu", known.cpu, sorted(os.environ), flush=True)
if os.path.exists("broken"):
    sys.exit("no module named torch")
serve(Comfy(), known.port)
"""


def make_checkout(folder: Path) -> Path:
    """A folder with a `main.py` that serves the protocol, and an environment with this Python."""
    folder.mkdir()
    root = Path(__file__).resolve().parents[3]
    (folder / "main.py").write_text(MAIN.format(root=str(root)))
    (folder / "beside.py").write_text("said = 'Starting server'\n")
    home = folder / "venv" / "bin"
    home.mkdir(parents=True)
    (home / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (home / "python").chmod(0o755)
    return folder
