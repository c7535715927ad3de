"""Images of others are named by digests once their registries have told them."""

import hashlib
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from scripts import pin_images
from tests.infra.environments import INFRA

REGISTRY = """#!/bin/sh
case "$4" in *{fails}*) echo "$4: no such host" >&2; exit 1;; esac
printf 'sha256:'; printf '%s' "{secret}$4" | sha256sum | cut -d' ' -f1
"""


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(INFRA, tmp_path / "infra")
    monkeypatch.setattr(pin_images, "INFRA", tmp_path / "infra")
    return tmp_path / "infra"


def pin(folder: Path, monkeypatch: pytest.MonkeyPatch, secret: str, fails: str = "nothing") -> int:
    docker = folder / "docker.sh"
    docker.write_text(REGISTRY.format(secret=secret, fails=fails))
    docker.chmod(0o755)
    monkeypatch.setattr(sys, "argv", ["pin_images", str(docker)])
    return pin_images.main()


def digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def images(folder: Path) -> set[str]:
    (compose,) = yaml.safe_load_all((folder / "compose" / "compose.yaml").read_text())
    found = {service["image"] for service in compose["services"].values()}
    for path in sorted(folder.glob("docker/Dockerfile.*")):
        lines = path.read_text().splitlines()
        found |= {line.split()[1] for line in lines if line.startswith("FROM ")}
        found |= {line.partition("=")[2] for line in lines if line.startswith("# syntax=")}
    for path in sorted(folder.glob("kubernetes/*.yaml")):
        found |= {
            line.split("image:")[1].strip()
            for line in path.read_text().splitlines()
            if line.strip().startswith("image:")
        }
    return found


def test_every_image_of_others_gets_its_digest_and_a_new_one_later(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = images(copy)
    assert {name.partition("@")[0].partition(":")[0] for name in before} >= {
        "python", "postgres", "redis", "docker/dockerfile", "chrislusf/seaweedfs",
    }  # fmt: skip
    for secret in ("one", "two"):
        assert pin(copy, monkeypatch, secret) == 0
        bare = {name.partition("@")[0] for name in before}
        assert images(copy) == {
            name if name.startswith("safelight/") else f"{name}@{digest(secret + name)}"
            for name in bare
        }


def test_nothing_is_written_when_a_registry_does_not_answer(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    before = images(copy)
    assert pin(copy, monkeypatch, "x", fails="redis") == 1
    assert "redis:" in capsys.readouterr().err
    assert images(copy) == before
    monkeypatch.setattr(sys, "argv", ["pin_images", str(copy / "nowhere")])
    assert pin_images.main() == 1
