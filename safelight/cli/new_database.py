"""`python -m safelight.cli.new_database`: makes a database of Prefect that has tables and no rows.

Prefect makes its tables by a hundred migrations, which on SQLite take longer than all else that a
server does until it answers. They are the same everywhere, so setting up runs them once, and an
embedded server on a new volume begins with a copy. It looks for missing migrations as ever, and
without a copy it runs all of them.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import prefect

from safelight.children import start_child
from safelight.errors import UnknownError
from safelight.private import make_file

DATABASE = "prefect.db"
"""What Prefect calls it in its home."""
LEFT_BY_SQLITE = ("", "-wal", "-shm", "-journal")
"""Ends of names of files that hold a part of a database, or change one that gets their name."""


def prepared() -> Path:
    """Where it lies: beside the packages, by the version of Prefect that made it."""
    return Path(sys.prefix) / "share" / "safelight" / f"prefect-{prefect.__version__}.db"


def prepare() -> None:
    """Have Prefect make it, unless it is there.

    Raises:
        UnknownError: Prefect did not.
    """
    if prepared().exists():
        return
    prepared().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=prepared().parent) as folder:
        home = Path(folder)
        log = home / "log"
        with log.open("wb") as output:
            code = start_child(
                "prefect",
                ("server", "database", "upgrade", "--yes"),
                environment=_without_prefect() | {"PREFECT_HOME": folder, "DO_NOT_TRACK": "1"},
                folder=home,
                output=output,
            ).wait()
        made = {file.name for file in home.glob(f"{DATABASE}*")}
        if code or made != {DATABASE}:
            raise UnknownError(
                f"Prefect was to make its tables, ended with {code} and left {sorted(made)}: "
                f"{log.read_text(errors='replace')[-1000:]}",
                "install the locked version of Prefect: scripts/setup.sh run",
            )
        (home / DATABASE).replace(prepared())


def begin_with_tables(home: Path) -> bool:
    """Give a new server its tables, if they are prepared.

    Nobody else may start one there meanwhile.

    Args:
        home: folder of a server; nothing happens when it has a database, or a part of one.

    Returns:
        Whether it has been given them.
    """
    file = home / DATABASE
    if any((home / f"{DATABASE}{end}").exists() for end in LEFT_BY_SQLITE):
        return False
    half = home / f"{DATABASE}.new"
    half.unlink(missing_ok=True)
    try:
        source = prepared().open("rb")
    except FileNotFoundError:
        return False
    with source, os.fdopen(make_file(half), "wb") as copy:
        shutil.copyfileobj(source, copy)
    half.replace(file)
    return True


def _without_prefect() -> dict[str, str]:
    """This environment, without settings that name another database."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}


if __name__ == "__main__":
    prepare()
