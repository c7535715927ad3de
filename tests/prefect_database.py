"""A Prefect database with its tables, made once: making them is most of a server's first start."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from safelight.cli.new_database import prepared
from safelight.cli.server import QUIET, prefect_home

NAME = "prefect.db"


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The file, shared by all processes of this test session; copy it, do not use it."""
    root = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        root = root.parent
    made = root / NAME
    with FileLock(root / "prefect.db.lock"):
        if not made.exists():
            _make(made)
    return made


def put_database(database: Path, volume: Path) -> None:
    """Put a copy where an embedded server with this volume root looks for it."""
    home = prefect_home(volume)
    home.mkdir(parents=True)
    shutil.copy(database, home / NAME)


def _make(file: Path) -> None:
    if prepared().exists():  # by the set-up
        shutil.copy(prepared(), file)
        return
    home = file.parent / "prefect-home"
    subprocess.run(
        [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"],
        env={**_without_prefect(), **QUIET, "PREFECT_HOME": str(home)},
        capture_output=True,
        check=True,
    )
    made = sqlite3.connect(home / NAME)
    made.execute("VACUUM INTO ?", (str(file),))  # whole, whatever is in the log beside it
    made.close()


def _without_prefect() -> dict[str, str]:
    """This environment without anything that names a database of somebody."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
