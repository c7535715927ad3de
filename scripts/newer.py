"""Which main dependencies have newer versions, and which known faults concern the locked ones.

What is known stands in requirements/known-faults.toml with its source, to be kept up by whoever
moves a lock. Status 1 when a locked version has a known fault.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("run", "dev", "no-deps", "quantise", "server")


def main() -> int:
    """Print a table, and the faults."""
    locked = {name: version for lock in LOCKS for name, version in _pins(lock)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], "sqlalchemy", "certifi"]
    for line in wanted:
        name = Requirement(line).name
        print(f"{name:<20} {locked[name]:<18} {_newest(name) or 'not known'}")
    found = 0
    for fault in tomllib.loads((ROOT / "requirements" / "known-faults.toml").read_text())["fault"]:
        version = locked.get(fault["package"])
        if version is not None and SpecifierSet(fault["versions"]).contains(version, True):
            found += 1
            print(f"KNOWN FAULT {fault['package']} {version}: {fault['what']} ({fault['source']})")
    return 1 if found else 0


def _pins(lock: str) -> list[tuple[str, str]]:
    lines = (ROOT / "requirements" / f"{lock}.lock").read_text().splitlines()
    words = [line.split()[0] for line in lines if "==" in line and not line.startswith("#")]
    return [(name, version) for name, _, version in (word.partition("==") for word in words)]


def _newest(name: str) -> str | None:
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "index", "versions", name, "--disable-pip-version-check"],
        capture_output=True,
        text=True,
        check=False,
    )
    first = asked.stdout.partition("\n")[0]
    return first.partition("(")[2].rstrip(")") or None


if __name__ == "__main__":
    sys.exit(main())
