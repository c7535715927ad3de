"""A store that is away for a while costs time; a request to stop does not wait for it."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from safelight.errors import StoreUnavailableError
from safelight.progress import StopRequestedError, clear_stop, request_stop
from safelight.store.results import PREFIX, RUN_RESULT, SafelightResults, as_ours
from safelight.store.store import Store, current_store
from tests.chaos.machines import Gate, Outage
from tests.store.servers import ACCESS_KEY, SECRET_KEY, S3Server

AWAY_SECONDS = 1.0


@pytest.fixture
def gate(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    monkeypatch.setattr("safelight.store.s3.ATTEMPTS", 1)
    with Gate(moto.port) as gate:
        yield gate


def opened(moto: S3Server, gate: Gate, folder: Path, seconds: float) -> Store:
    bucket = moto.opened(folder.name, url=gate.url)
    return Store(bucket, folder / "scratch", 0, remote=True, patience_seconds=seconds)


def back_soon(gate: Gate) -> None:
    threading.Timer(AWAY_SECONDS, gate.open).start()


@pytest.mark.parametrize("how", ["refused", "cut", "held"])
def test_reads_and_uploads_outlast_an_outage(
    moto: S3Server, gate: Gate, tmp_path: Path, how: Outage
):
    store = opened(moto, gate, tmp_path, 60)
    store.write_record("cache/results/before", b"before")
    store.settle()
    gate.shut(how)
    back_soon(gate)
    ref = store.put(b"picture", "image/png")
    store.write_record("cache/results/after", ref.uri.encode())
    assert store.read_record("cache/results/before") == b"before"
    store.settle()
    direct = moto.opened(tmp_path.name)
    assert direct.read(ref.uri.removeprefix("store:")) == b"picture"
    assert direct.exists("cache/results/after")


def test_patience_ends(moto: S3Server, gate: Gate, tmp_path: Path):
    store = opened(moto, gate, tmp_path, 0.3)
    gate.shut("refused")
    with pytest.raises(StoreUnavailableError):
        store.read_record("cache/results/x")


def test_a_request_to_stop_does_not_wait_for_the_store(moto: S3Server, gate: Gate, tmp_path: Path):
    store = opened(moto, gate, tmp_path, 60)
    gate.shut("refused")
    store.put(b"picture", "image/png")
    threading.Timer(0.2, request_stop).start()
    began = time.monotonic()
    try:
        with pytest.raises(StopRequestedError):
            store.settle()
        with pytest.raises(StopRequestedError):
            store.read_record("cache/results/x")
    finally:
        clear_stop()
    assert time.monotonic() - began < 30
    gate.open()
    store.settle()
    assert len(moto.opened(tmp_path.name).list("outputs/")) == 1, "the upload went on"


@pytest.fixture
def bucket_store(
    moto: S3Server, gate: Gate, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    for name, value in {
        "SAFELIGHT_STORE": f"s3://{moto.bucket}/patience",
        "SAFELIGHT_S3_ENDPOINT_URL": gate.url,
        "SAFELIGHT_S3_ACCESS_KEY": ACCESS_KEY,
        "SAFELIGHT_S3_SECRET_KEY": SECRET_KEY,
    }.items():
        monkeypatch.setenv(name, value)
    yield
    current_store().settle()


@pytest.mark.usefixtures("bucket_store")
def test_a_finished_stage_is_found_through_an_outage(gate: Gate):
    given = {"__class__": RUN_RESULT, "data": {"success": True}}
    record = as_ours("stage-key", json.dumps({"result": json.dumps(given)}).encode())
    SafelightResults().write_path("stage-key", record)
    gate.shut("refused")
    back_soon(gate)
    # an error here would read as "not cached", and the stage would run again
    assert SafelightResults().read_path("stage-key") == record


@pytest.mark.usefixtures("bucket_store")
def test_the_result_of_a_flow_is_durable_when_it_was_written(moto: S3Server, gate: Gate):
    gate.shut("held")
    back_soon(gate)
    SafelightResults().write_path("flow-result", b"{}")
    assert moto.opened("patience").exists(f"{PREFIX}flow-result")
