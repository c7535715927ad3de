"""The compose file: valid, hardened, watched, without secrets, and in step with the code."""

import json
import os
import re
import shutil
import stat
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.infra.environments import CHECKOUT, INFRA, load, read_from_files, unknown

COMPOSE = INFRA / "compose"
VALIDATOR = jsonschema.Draft7Validator(
    json.loads((CHECKOUT / "tests" / "infra" / "schemas" / "compose-spec.json").read_text())
)
(FILE,) = load(COMPOSE / "compose.yaml")
SERVICES = FILE["services"]
ONE_SHOT = {"bucket", "deploy", "s3-volume"}
LASTING = sorted(set(SERVICES) - ONE_SHOT)
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]


def test_it_is_a_compose_file():
    VALIDATOR.validate(FILE)


def test_the_schema_would_see_a_slip():
    broken = json.loads(json.dumps(FILE))
    broken["services"]["server"]["stop_grace"] = "30s"
    with pytest.raises(jsonschema.ValidationError, match="stop_grace"):
        VALIDATOR.validate(broken)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_service_is_hardened_and_limited(name: str):
    service = SERVICES[name]
    user, group = service["user"].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    limits = service["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory"}


@pytest.mark.parametrize("name", LASTING)
def test_service_is_watched_and_comes_back(name: str):
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["restart"] == "unless-stopped"
    assert service["stop_grace_period"]


def test_one_shots_are_waited_for():
    for name in ONE_SHOT:
        assert SERVICES[name]["healthcheck"] == {"disable": True}
        waited = [
            other
            for other, service in SERVICES.items()
            if service.get("depends_on", {}).get(name, {}).get("condition")
            == "service_completed_successfully"
        ]
        assert waited, name


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_image_is_pinned(name: str):
    image = SERVICES[name]["image"]
    named, _, digest = image.partition("@")
    assert re.fullmatch(r"(sha256:[0-9a-f]{64})?", digest), image
    repository, _, tag = named.rpartition(":")
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?(-[a-z]+)?", tag), image
    if repository.startswith("safelight/"):
        assert tag == PROJECT["version"]
        build = SERVICES[name]["build"]
        assert (COMPOSE / build["context"]).resolve() == CHECKOUT
        assert (CHECKOUT / build["dockerfile"]).is_file()


def test_pins_of_the_server_are_those_of_the_project():
    pinned = (CHECKOUT / "requirements" / "server.lock").read_text().split()
    assert set(pinned) <= set((CHECKOUT / "requirements" / "run.lock").read_text().split()) | set(
        (CHECKOUT / "requirements" / "dev.lock").read_text().split()
    )
    assert f"prefect=={version('prefect')}" in pinned
    assert f"prefect=={version('prefect')}" in PROJECT["dependencies"]
    assert f"prefect-redis=={version('prefect-redis')}" in pinned


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_variables_are_real_settings(name: str):
    assert unknown(SERVICES[name].get("environment", {}), read_from_files()) == set()


def test_a_setting_that_does_not_exist_is_seen():
    assert unknown(["PREFECT_MESSAGING_BROKERS", "SAFELIGHT_GPU", "PGDATA"]) == {
        "PREFECT_MESSAGING_BROKERS",
        "SAFELIGHT_GPU",
    }


def test_secrets_come_from_files_that_are_not_kept():
    text = (COMPOSE / "compose.yaml").read_text()
    used = {one for service in SERVICES.values() for one in service.get("secrets", [])}
    built = {
        one for service in SERVICES.values() for one in service.get("build", {}).get("secrets", [])
    }
    assert used | built == set(FILE["secrets"])
    for name, secret in FILE["secrets"].items():
        assert secret["file"].startswith("./secrets/"), name
    ignored = (COMPOSE / ".gitignore").read_text().splitlines()
    assert {"/secrets/", "/.env"} <= set(ignored)
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            assert name not in read_from_files(), f"{name} is {value}"
            if name.endswith("_FILE"):
                assert value.removeprefix("/run/secrets/") in service["secrets"]
    assert not re.search(r"://[^/\s]*:[^/\s{]*@", text)


def test_secrets_are_made_once_and_for_their_owner(tmp_path: Path):
    shutil.copy(COMPOSE / "make_secrets.sh", tmp_path)
    made = [run_make_secrets(tmp_path) for _ in range(2)]
    assert made[0] == made[1]
    assert {f"./secrets/{name}" for name in made[0]} == {
        secret["file"] for secret in FILE["secrets"].values()
    }
    folder = tmp_path / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert made[0]["redis_url"] == f"redis://:{made[0]['redis_password']}@redis:6379/0"
    setup, workers = json.loads(made[0]["s3_identities.json"])["identities"]
    for identity, key in ((setup, "s3_setup"), (workers, "s3")):
        assert identity["credentials"] == [
            {
                "accessKey": made[0][f"{key}_access_key"],
                "secretKey": made[0][f"{key}_secret_key"],
            }
        ]
    assert setup["actions"] == ["Admin"]
    assert "Admin" not in workers["actions"]
    random = [made[0][name] for name in ("postgres_password", "redis_password", "s3_secret_key")]
    assert len(set(random)) == 3
    assert all(len(one) == 48 for one in random)


def test_only_the_service_that_makes_the_bucket_may_do_so():
    holders = {n for n, s in SERVICES.items() if "s3_setup_secret_key" in s.get("secrets", ())}
    assert holders == {"bucket"}
    assert "s3_secret_key" not in SERVICES["bucket"]["secrets"]


def test_every_service_has_a_limit_of_processes():
    assert all(512 <= service["pids_limit"] <= 4096 for service in SERVICES.values())


def run_make_secrets(folder: Path) -> dict[str, str]:
    subprocess.run(["sh", folder / "make_secrets.sh"], check=True, env={"PATH": os.environ["PATH"]})
    return {path.name: path.read_text() for path in (folder / "secrets").iterdir()}


def test_workers_get_time_to_finish():
    for name in ("worker-gpu", "worker-cpu"):
        assert SERVICES[name]["stop_grace_period"] == "15m"
        assert "--with-healthcheck" in SERVICES[name]["command"]
    assert SERVICES["worker-batches"]["command"][3:5] == ["--pool", "batches"]
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"


def test_every_example_variable_is_used():
    text = (COMPOSE / "compose.yaml").read_text()
    example = (COMPOSE / ".env.example").read_text()
    named = set(re.findall(r"^([A-Z0-9_]+)=", example, re.MULTILINE)) - {"COMPOSE_PROFILES"}
    assert named == set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)", text))


def test_networks_and_volumes_are_declared():
    for service in SERVICES.values():
        assert set(service.get("networks", [])) <= set(FILE["networks"])
    assert FILE["networks"]["database"] == {"internal": True}
    assert yaml.safe_load((COMPOSE / "compose.yaml").read_text())["name"] == "safelight"
