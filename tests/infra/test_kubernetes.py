"""The Kubernetes manifests: valid, restricted, watched, without secrets, in step with the code."""

import copy
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator

import kubernetes_validate
import pytest

from tests.infra.environments import CHECKOUT, INFRA, load, read_from_files, unknown

FOLDER = INFRA / "kubernetes"
(KUSTOMIZATION,) = load(FOLDER / "kustomization.yaml")
OBJECTS = [found for name in KUSTOMIZATION["resources"] for found in load(FOLDER / name)]
SETS = [one for one in OBJECTS if one["kind"] in ("Deployment", "StatefulSet", "Job")]
SECRETS = {
    "postgres": {"password"},
    "redis": {"password", "url"},
    "prefect": {"auth"},
    "s3": {"access-key", "secret-key"},
    "s3-setup": {"access-key", "secret-key"},
}
"""What the README has the operator create."""
VERSION = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]


def named(entry: dict) -> str:
    return f"{entry['kind']}-{entry['metadata']['name']}"


def pod(entry: dict) -> dict:
    return entry["spec"]["template"]["spec"]


def containers(entry: dict) -> list[dict]:
    return pod(entry).get("initContainers", []) + pod(entry)["containers"]


def variables(container: dict) -> Iterator[tuple[str, object]]:
    for entry in container.get("env", []):
        yield entry["name"], entry.get("value")
    for source in container.get("envFrom", []):
        name = source["configMapRef"]["name"]
        (found,) = [
            one for one in OBJECTS if one["kind"] == "ConfigMap" and one["metadata"]["name"] == name
        ]
        yield from found["data"].items()


@pytest.mark.parametrize("release", ["1.30.0", "1.37.0"])
@pytest.mark.parametrize("entry", OBJECTS, ids=named)
def test_it_is_an_object_of_kubernetes(entry: dict, release: str):
    kubernetes_validate.validate(entry, release, strict=True)


def test_the_schema_would_see_a_slip():
    broken = copy.deepcopy(SETS[0])
    pod(broken)["terminationGracePeriod"] = 30
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(broken, "1.37.0", strict=True)


@pytest.mark.parametrize("entry", SETS, ids=named)
def test_pod_keeps_to_the_restricted_standard(entry: dict):
    security = pod(entry)["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod(entry)["automountServiceAccountToken"] is False
    for container in containers(entry):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("entry", SETS, ids=named)
def test_container_is_limited_and_watched(entry: dict):
    for container in containers(entry):
        resources = container["resources"]
        assert {"cpu", "memory"} <= set(resources["limits"])
        assert {"cpu", "memory"} <= set(resources["requests"])
    if entry["kind"] == "Job":
        return
    for container in pod(entry)["containers"]:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert {"exec", "httpGet"} & set(container[probe]), probe
    assert pod(entry)["terminationGracePeriodSeconds"] >= 30


@pytest.mark.parametrize("entry", SETS, ids=named)
def test_images_are_those_of_the_compose_file(entry: dict):
    (compose,) = load(INFRA / "compose" / "compose.yaml")
    known = {service["image"] for service in compose["services"].values()}
    for container in containers(entry):
        assert container["image"] in known


def test_kustomization_names_every_file_and_tag():
    written = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(KUSTOMIZATION["resources"]) == written
    assert {image["newTag"] for image in KUSTOMIZATION["images"]} == {VERSION}
    assert {one["kind"] for one in OBJECTS} & {"Secret"} == set()


@pytest.mark.parametrize("entry", SETS, ids=named)
def test_variables_are_real_settings_and_secrets_are_referred_to(entry: dict):
    for container in containers(entry):
        given = dict(variables(container))
        assert unknown(given) == set()
        for name in read_from_files() & set(given):
            assert given[name] is None, f"{name} is {given[name]}"
        for one in container.get("env", []):
            if "valueFrom" in one:
                reference = one["valueFrom"]["secretKeyRef"]
                assert reference["key"] in SECRETS[reference["name"]]
    for volume in pod(entry).get("volumes", []):
        if "secret" in volume:
            assert volume["secret"]["secretName"] in SECRETS


def test_each_key_of_the_store_is_held_by_those_alone_who_need_it():
    holders: dict[str, set[str]] = {}
    for entry in SETS:
        for container in containers(entry):
            for one in container.get("env", []):
                secret = one.get("valueFrom", {}).get("secretKeyRef", {}).get("name", "")
                if secret.startswith("s3"):
                    holders.setdefault(secret, set()).add(container["name"])
    assert holders.pop("s3-setup") == {"bucket"}
    assert holders["s3"]
    assert not holders["s3"] & {"bucket", "deploy", "server", "services"}


def test_server_is_told_the_same_as_by_compose():
    (compose,) = load(INFRA / "compose" / "compose.yaml")
    for name in ("server", "services"):
        theirs = {
            variable.removesuffix("_FILE") for variable in compose["services"][name]["environment"]
        }
        (entry,) = [one for one in SETS if one["metadata"]["name"] == name]
        ours = {variable for variable, _ in variables(pod(entry)["containers"][0])}
        assert ours - {"PREFECT_SERVER_DATABASE_MIGRATE_ON_START"} >= theirs - {
            "PREFECT_SERVER_DATABASE_MIGRATE_ON_START"
        }


def test_the_readme_creates_the_secrets():
    readme = (INFRA / "README.md").read_text()
    for name, keys in SECRETS.items():
        assert f"create secret generic {name} " in readme
        for key in keys:
            assert f"--from-file={key}=" in readme


def test_gpu_workers_get_a_gpu_and_time_to_finish():
    (gpu,) = [one for one in SETS if one["metadata"]["name"] == "worker-gpu"]
    (container,) = pod(gpu)["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod(gpu)["terminationGracePeriodSeconds"] == 900
    assert "--with-healthcheck" in container["args"]


def test_policies_and_budgets_select_what_is_there():
    names = {entry["metadata"]["name"] for entry in SETS}
    chosen: set[str] = set()
    for one in OBJECTS:
        if one["kind"] == "NetworkPolicy":
            selector = one["spec"]["podSelector"]
        elif one["kind"] == "PodDisruptionBudget":
            selector = one["spec"]["selector"]
        else:
            continue
        for rule in selector.get("matchExpressions", []):
            chosen |= set(rule["values"])
        chosen |= set(selector.get("matchLabels", {}).values())
    assert chosen == names
    (everything,) = [one for one in OBJECTS if one["metadata"]["name"] == "nothing"]
    assert everything["spec"]["podSelector"] == {}
    assert set(everything["spec"]["policyTypes"]) == {"Ingress", "Egress"}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_builds_it():
    built = subprocess.run(
        ["kubectl", "kustomize", FOLDER], capture_output=True, text=True, check=True
    ).stdout
    assert len(re.findall(r"^kind:", built, re.MULTILINE)) == len(OBJECTS)
    assert built.count("namespace: safelight") >= len(OBJECTS) - 1
