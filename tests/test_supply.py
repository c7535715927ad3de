"""What the project is made of, and the look for known holes in it."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts.audit import advisories, holes
from scripts.sbom import ROOT, bill, pins


def advisory(name: str, *events: dict[str, str], **more: object) -> dict[str, object]:
    span = {"type": "ECOSYSTEM", "events": list(events)}
    package = {"ecosystem": "PyPI", "name": name}
    return {"id": "X-1", "affected": [{"package": package, "ranges": [span]}], **more}


def test_the_bill_names_every_pin_with_its_hashes():
    found = {part["bom-ref"]: part for part in bill()["components"]}
    locked = [pin for lock in ("run", "no-deps", "quantise", "dev") for pin in pins(lock)]
    assert len(locked) > 150
    for name, version, hashes in locked:
        part = found[f"pkg:pypi/{name}@{version}"]
        assert [one["content"] for one in part["hashes"]] == hashes
        assert hashes
    assert any(ref.startswith("weights/") for ref in found)
    assert "://" not in json.dumps(bill())


@pytest.mark.parametrize(
    ("version", "events", "hit"),
    [
        ("1.5", [{"introduced": "0"}, {"fixed": "1.6"}], True),
        ("1.6", [{"introduced": "0"}, {"fixed": "1.6"}], False),
        ("1.10", [{"introduced": "1.9"}, {"last_affected": "1.10"}], True),
        ("1.11", [{"introduced": "1.9"}, {"last_affected": "1.10"}], False),
        ("2.1", [{"introduced": "0"}, {"fixed": "1.0"}, {"introduced": "2.0"}], True),
        ("1.5", [{"fixed": "1.0"}, {"introduced": "0"}], False),
    ],
)
def test_a_range_is_read_as_osv_means_it(version: str, events: list[dict[str, str]], hit: bool):
    assert bool(list(holes(advisory("Some_Thing", *events), {"some-thing": version}))) is hit


def test_other_ecosystems_and_packages_do_not_count():
    given = advisory("left-pad", {"introduced": "0"})
    given["affected"][0]["package"]["ecosystem"] = "npm"
    assert not list(holes(given, {"left-pad": "1.0"}))
    assert not list(holes(advisory("other", {"introduced": "0"}), {"left-pad": "1.0"}))


def test_a_list_an_archive_and_withdrawn_ones_are_read(tmp_path: Path):
    good, gone = advisory("x", {"introduced": "0"}), advisory("x", withdrawn="2026-01-01")
    (tmp_path / "list.json").write_text(json.dumps([good, gone]))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a.json", json.dumps(good))
        archive.writestr("b.json", json.dumps(gone))
    for name in ("list.json", "all.zip"):
        assert list(advisories(tmp_path / name)) == [good]


def audit(*files: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "scripts.audit", *map(str, files)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_locks_have_no_hole_that_is_known_here(tmp_path: Path):
    assert audit().returncode == 0
    file = tmp_path / "new.json"
    file.write_text(json.dumps(advisory("Torch", {"introduced": "0"})))
    done = audit(file)
    assert done.returncode == 1
    assert "KNOWN HOLE torch" in done.stdout
