"""Which locked packages have known holes, by a local file of advisories in the OSV format.

usage: python scripts/audit.py [FILE]..., `requirements/advisories.json` when none is named. A file
holds one advisory or a list, or is a zip archive of them, such as OSV's export of all of PyPI.
Status 1 when a locked version has a known hole.
"""

import json
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from scripts.sbom import LOCKS, ROOT, pins

ADVISORIES = ROOT / "requirements" / "advisories.json"
OTHERS = ("server", "tools", "locking")


def main() -> int:
    """Print the holes."""
    files = [Path(name) for name in sys.argv[1:]] or [ADVISORIES]
    locked: dict[str, str] = {
        canonicalize_name(name): version
        for lock in (*LOCKS, *OTHERS)
        for name, version, _ in pins(lock)
    }
    read = found = 0
    for file in files:
        for advisory in advisories(file):
            read += 1
            for name, version in holes(advisory, locked):
                found += 1
                print(f"KNOWN HOLE {name} {version}: {advisory['id']} {advisory.get('summary')}")
    print(f"{len(locked)} packages, {read} advisories, {found} known holes")
    return 1 if found else 0


def advisories(file: Path) -> Iterator[dict[str, Any]]:
    """The advisories in a file that were not withdrawn."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            parts = [archive.read(name) for name in archive.namelist() if name.endswith(".json")]
    else:
        parts = [file.read_bytes()]
    for part in parts:
        held = json.loads(part)
        for advisory in held if isinstance(held, list) else [held]:
            if "withdrawn" not in advisory:
                yield advisory


def holes(advisory: dict[str, Any], locked: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The locked packages that an advisory concerns."""
    for affected in advisory.get("affected", ()):
        package = affected.get("package", {})
        name = canonicalize_name(package.get("name", ""))
        version = locked.get(name)
        if version is None or package.get("ecosystem") != "PyPI":
            continue
        if version in affected.get("versions", ()) or any(
            _within(Version(version), span.get("events", ()))
            for span in affected.get("ranges", ())
            if span.get("type") == "ECOSYSTEM"
        ):
            yield name, version


def _within(version: Version, events: list[dict[str, str]]) -> bool:
    """Whether a version lies in a range of events: introduced, fixed, last_affected."""
    inside = False
    for event in sorted(events, key=_order):
        kind, at = next(iter(event.items()))
        if kind == "introduced" and (at == "0" or version >= Version(at)):
            inside = True
        elif kind == "fixed" and version >= Version(at):
            inside = False
        elif kind == "last_affected" and version > Version(at):
            inside = False
    return inside


def _order(event: dict[str, str]) -> Version:
    try:
        return Version(next(iter(event.values())))
    except InvalidVersion:
        return Version("0")


if __name__ == "__main__":
    sys.exit(main())
