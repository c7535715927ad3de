"""`safelight models`: what is there, what of it is whole, what can be fetched."""

import json
import os
import pickle
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from safelight.cli.models import models as commands
from safelight.digests import sha256_of
from safelight.errors import (
    DependencyMissingError,
    InvalidFieldValueError,
    LicenseUnknownError,
    PipelineError,
)
from safelight.settings import reload_settings
from tests.engines.spandrel_nets.tiny_upscalers import compact, restoreformer, save
from tests.store.servers import ACCESS_KEY, SECRET_KEY, moto_server
from tests.weights.faulty import Faulty, serving
from tests.weights.files import LORA, put, safetensors


@pytest.fixture
def folder(volume: Path) -> Path:
    reload_settings()
    put(volume / "models" / "dream.safetensors", modelspec__license="MIT")
    put(volume / "models" / "loras" / "film.safetensors", LORA, ss_network_dim="4")
    return volume / "models"


def run(*words: str) -> Result:
    return CliRunner().invoke(commands, list(words))


def answer(*words: str) -> object:
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refused(*words: str) -> PipelineError:
    error = run(*words).exception
    assert isinstance(error, PipelineError)
    return error


def test_scan_list_and_show(folder: Path):
    (folder / "line\nbreak.ckpt").write_bytes(b"x")
    done = run("scan")
    assert "2 models" in done.stdout
    assert "2 new" in done.stdout
    assert "line\\nbreak.ckpt" in done.stdout
    assert len([line for line in done.stdout.splitlines() if line]) == 2
    listed = run("list", "--type", "lora").stdout.splitlines()
    assert [line.split("\t")[:3] for line in listed[1:]] == [["film", "lora", "sd"]]
    shown = run("show", "film").stdout
    assert "rank: 4" in shown
    assert "licence of model film is not known" in shown
    assert "not known" not in run("show", "dream").stdout
    facts = answer("show", "dream")
    assert isinstance(facts, dict)
    assert facts["sha256"] == sha256_of(folder / "dream.safetensors")
    assert set(facts) >= {
        *("name", "model_type", "file_path", "file_size_bytes", "discovered_at", "description"),
        *("tags", "metadata", "sha256", "licence", "base_model"),
    }
    assert isinstance(refused("show", "nothing"), DependencyMissingError)
    assert isinstance(refused("list", "--type", "gizmo"), InvalidFieldValueError)


@pytest.mark.slow
def test_show_tells_what_the_network_of_an_upscaler_and_of_a_restorer_is(folder: Path):
    save(compact(2), folder / "upscalers" / "sharp.pth")
    save(restoreformer(), folder / "restorers" / "mend.safetensors")
    (folder / "upscalers" / "cut.pth").write_bytes(
        (folder / "upscalers" / "sharp.pth").read_bytes()[:900]
    )
    run("scan")
    shown = run("show", "sharp").stdout
    assert "model_type: upscaler" in shown
    assert "architecture: RealESRGAN Compact" in shown
    assert "purpose: enlarges" in shown
    assert "scale: 2" in shown
    facts = answer("show", "mend")
    assert isinstance(facts, dict)
    assert facts["model_type"] == "restorer"
    network = facts["network"]
    assert (network["architecture"], network["purpose"], network["scale"]) == (
        *("RestoreFormer", "restores faces", 1),
    )
    assert network["parameters"] > 100_000
    assert "problem: " in run("show", "cut").stdout


def test_add_and_remove(folder: Path):
    file = str(folder / "dream.safetensors")
    added = answer("add", file, "--name", "mine", "--tag", "a", "--tag", "b", "--licence", "MIT")
    assert isinstance(added, dict)
    assert (added["name"], added["tags"]) == ("mine", ["a", "b"])
    assert "forgotten" in run("remove", "mine").stdout
    assert Path(file).exists()
    assert answer("list") == []


def test_verify_reads_every_byte(folder: Path):
    run("scan")
    assert run("verify").exit_code == 0
    file = folder / "dream.safetensors"
    known = file.stat()
    with file.open("r+b") as opened:  # in place, as a disk that forgets
        opened.seek(-1, os.SEEK_END)
        opened.write(b"\x07")
    os.utime(file, ns=(known.st_atime_ns, known.st_mtime_ns))
    done = run("verify", "dream")
    assert done.exit_code == 1
    assert "it was" in done.stdout
    (folder / "evil.ckpt").write_bytes(pickle.dumps(os.system))
    run("scan")
    found = {one["name"]: one["ok"] for one in json.loads(run("verify", "--json").stdout)}
    assert found == {"dream": True, "evil": False, "film": True}


def test_get_from_an_address_and_who_took_it(folder: Path):
    content = safetensors(LORA, fill=9)
    with serving(Faulty(content, plan=["cut"])) as server:
        address = f"{server.url}/glow.safetensors"
        assert isinstance(refused("get", address), LicenseUnknownError)
        got = answer("get", address, "--accept-licence", "--accept-unchecked")
    assert isinstance(got, dict)
    assert (got["name"], got["fetched"]) == ("glow", True)
    assert "not known" in str(got["remark"])
    assert (folder / "loras" / "glow.safetensors").read_bytes() == content
    assert "taken in spite of LICENSE_UNKNOWN by" in run("show", "glow").stdout


def test_the_catalog_is_listed(folder: Path):
    rows = run("catalog").stdout.splitlines()
    assert any(row.startswith("sdxl-base-1.0\tcheckpoint\tsdxl\t6.5 GiB") for row in rows)


def test_get_from_a_bucket(folder: Path, monkeypatch: pytest.MonkeyPatch):
    content = safetensors(LORA, fill=5)
    with moto_server() as server:
        server.client().put_object(Bucket=server.bucket, Key="sd/x y.safetensors", Body=content)
        for name, value in {
            "SAFELIGHT_S3_ENDPOINT_URL": server.url,
            "SAFELIGHT_S3_ACCESS_KEY": ACCESS_KEY,
            "SAFELIGHT_S3_SECRET_KEY": SECRET_KEY,
        }.items():
            monkeypatch.setenv(name, value)
        reload_settings()
        known = ("--licence", "MIT", "--sha256", sha256_of(content))
        got = answer("get", f"s3://{server.bucket}/sd/x y.safetensors", *known)
        error = refused("get", f"s3://{server.bucket}/sd/none.safetensors", *known)
    assert isinstance(got, dict)
    assert (folder / "loras" / "x y.safetensors").read_bytes() == content
    assert got["metadata"]["source"] == f"s3://{server.bucket}/sd/x y.safetensors"
    assert error.code == "FILE_NOT_FOUND"
    assert "Signature" not in str(error)
