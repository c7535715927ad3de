"""Batches and watched folders on workers that share server and bucket with the command, no more."""

import json
import os
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from PIL import Image
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL

from flows.batching.runs import TAG
from safelight.digests import sha256_of
from safelight.pool.configuration import BATCH_TYPE, POOL_TYPE
from safelight.pool.ownership import Owner
from safelight.provenance.manifest import Manifest
from safelight.watching.ledger import watch_id
from tests.flows.test_batch import CHECKOUT, deployed
from tests.prefect_pool import Pool, Project, eventually
from tests.store.conftest import moto  # noqa: F401
from tests.store.servers import S3Server

pytestmark = pytest.mark.slow
LOW = {"quality_preset": "low"}


@dataclass
class Farm:
    """Workers on a machine of their own."""

    client: SyncPrefectClient
    volume: Path
    """Of the workers alone."""
    bucket: S3Server
    prefix: str
    """Of the store in its bucket."""
    environment: dict[str, str]
    """By which any process finds server and bucket."""

    def command(self, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run `safelight` with a volume of its own."""
        return subprocess.run(
            [str(Path(sys.executable).parent / "safelight"), *words],
            env={**os.environ, **self.environment, "VOLUME_ROOT": str(folder / "own")},
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
        )

    def made(self, folder: Path) -> Counter[str]:
        """How many manifests speak of each picture of a folder, by its content."""
        wanted = {sha256_of(path) for path in folder.rglob("*.png")}
        client, prefix = self.bucket.client(), f"{self.prefix}/outputs/manifests/"
        listed = client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket.bucket, Prefix=prefix
        )
        found: Counter[str] = Counter()
        for each in (each for page in listed for each in page.get("Contents", [])):
            if "/" in each["Key"].removeprefix(prefix):
                continue  # which manifests name a file
            read = client.get_object(Bucket=self.bucket.bucket, Key=each["Key"])["Body"].read()
            manifest = Manifest.model_validate_json(read)
            inputs = [ref.sha256 for ref in manifest.inputs.values()] if manifest.success else []
            found.update(sha256 for sha256 in inputs if sha256 in wanted)
        return found

    def runs(self, key: str) -> list[FlowRun]:
        """Those that a batch or watch of that key made."""
        wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=[TAG + key]))
        return self.client.read_flow_runs(flow_run_filter=wanted)


@pytest.fixture(scope="module")
def farm(
    server: None,
    moto: S3Server,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Farm]:
    del server
    folder = tmp_path_factory.mktemp("far")
    prefix = f"far/{uuid4()}"
    environment = {
        **moto.settings(prefix),
        "PREFECT_API_URL": PREFECT_API_URL.value() or "",
    }
    with get_client(sync_client=True) as client:
        gpu = Pool(client, Project(folder), POOL_TYPE)
        waiting = Pool(client, gpu.project, BATCH_TYPE)
        named = ((gpu, "enhance"), (gpu, "shard"), (waiting, "batch"), (waiting, "watch"))
        for pool, flow in named:
            deployed(client, flow, flow, pool.name)
        try:
            for pool, devices in ((gpu, "cpu:2"), (waiting, "cpu:1")):
                pool.start_worker(pool.name, SAFELIGHT_POOL_DEVICES=devices, **environment)
            yield Farm(client, folder / "volume", moto, prefix, environment)
        finally:
            gpu.stop()
            waiting.stop()
            for _, flow in named:  # others would wait for its workers
                client.delete_deployment(client.read_deployment_by_name(f"{flow}/{flow}").id)


def drop(folder: Path, name: str, shade: int) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (shade, 20, 90)).save(path)


@pytest.mark.parametrize(
    ("kind", "shards"),
    [
        ("zip", True),
        *(
            pytest.param(*more, marks=pytest.mark.soak)
            for more in (("folder", True), ("folder", False), ("zip", False))
        ),
    ],
)
def test_pictures_of_this_machine_are_run_elsewhere_and_come_back_as_a_zip(
    farm: Farm, tmp_path: Path, kind: str, shards: bool
):
    folder = tmp_path / "photos"
    shades = {"a.png": 1, "sub/b.png": 2, "sub/ü c.png": 3}
    for name, shade in shades.items():
        drop(folder, name, shade + 10 * shards + 20 * (kind == "zip"))
    given = folder
    if kind == "zip":
        given = tmp_path / "photos.zip"
        with zipfile.ZipFile(given, "w") as archive:
            for name in shades:
                archive.write(folder / name, name)
    made = tmp_path / "made.zip"
    key = f"far-{kind}-{shards}"
    words = ["--flow", "enhance", "--quality-preset", "low", "--zip", str(made), "--json"]
    words += ["--key", key]
    done = farm.command(tmp_path, "batch", str(given), *words, *(["--shards"] if shards else []))
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    flows = {farm.client.read_flow(run.flow_id).name for run in farm.runs(key)}
    assert flows == ({"shard"} if shards else {"enhance"}), told
    assert told["zip"] == str(made)
    with zipfile.ZipFile(made) as archive:
        assert archive.namelist() == list(shades)
        for name in shades:
            with archive.open(name) as file, Image.open(file) as picture:
                assert picture.size == (64, 64)


@pytest.mark.soak
def test_a_folder_of_fifty_pictures_is_run_to_its_end(farm: Farm, tmp_path: Path):
    folder, out = tmp_path / "photos", tmp_path / "out"
    names = {f"sub{number % 5}/photo {number}.png": number for number in range(50)}
    for name, number in names.items():
        drop(folder, name, 200 + number % 50)
        with Image.open(folder / name) as picture:
            picture.putpixel((0, 0), (number, 0, 0))
            picture.save(folder / name)
    words = ["--flow", "enhance", "--quality-preset", "low", "--output", str(out), "--shards"]
    done = farm.command(tmp_path, "batch", str(folder), *words, "--key", "fifty", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    made = {path.relative_to(out).as_posix(): path for path in out.rglob("sub*/*.png")}
    assert made.keys() == names.keys()
    for path in made.values():
        with Image.open(path) as picture:
            assert picture.size == (64, 64)
    assert set(farm.made(folder).values()) == {1}


@pytest.mark.soak
@pytest.mark.parametrize("shards", [False, True])
def test_a_watch_whose_process_is_killed_goes_on_and_does_each_content_once(
    farm: Farm, shards: bool
):
    count, name = 24, f"inbox-{shards}"
    inbox = farm.volume / "uploads" / name
    for number in range(count):
        drop(inbox, f"sub{number % 3}/{number}.png", 60 + number + 100 * shards)
    drop(inbox, "copy of 5.png", 65 + 100 * shards)
    (inbox / "bad.png").write_bytes(b"bad")
    to = f"exports/{name}"
    called = {"folder": f"uploads/{name}", "flow": "enhance", "to": to, "parameters": LOW}
    key = f"watch-{watch_id('enhance', LOW, str(farm.volume.resolve() / to))}"
    deployment = farm.client.read_deployment_by_name("watch/watch")
    run = farm.client.create_flow_run_from_deployment(
        deployment.id, parameters={**called, "settle_seconds": 0.5, "shards": shards}
    ).id
    eventually(lambda: sum(farm.made(inbox).values()) >= 3)
    owner = eventually(lambda: Owner.parse(farm.client.read_flow_run(run).infrastructure_pid))
    assert not list((farm.volume / to).rglob("*.png"))
    psutil.Process(owner.pid).kill()
    state = eventually(
        lambda: s if (s := farm.client.read_flow_run(run).state) and s.is_final() else None, 180
    )
    assert state.is_completed(), state
    other = Owner.parse(farm.client.read_flow_run(run).infrastructure_pid)
    assert other is None or other.pid != owner.pid
    out = farm.volume / to
    results = sorted(path for path in out.rglob("*.png") if "refused" not in path.parts)
    assert len(results) == count
    assert (out / "refused" / "bad.png.txt").read_text().startswith("bad.png\nINVALID")
    for path in results:
        with Image.open(path) as made:
            assert made.size == (64, 64)
    assert set(farm.made(inbox).values()) == {1}
    assert len(farm.made(inbox)) == count
    runs = farm.runs(key)
    assert {each.state_name for each in runs} == {"Completed"}
    if not shards:
        assert len(runs) == count
    again = farm.client.create_flow_run_from_deployment(
        deployment.id, parameters={**called, "settle_seconds": 0.5, "shards": shards}
    ).id
    eventually(lambda: farm.client.read_flow_run(again).state.is_completed(), 120)
    assert len(farm.runs(key)) == len(runs)
