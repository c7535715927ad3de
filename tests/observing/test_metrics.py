"""Counters of workers and gateway, and the dashboard that shows them."""

import json
import re
import socket

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from safelight.engines.identity import EngineIdentity
from safelight.gateway import counting
from safelight.gateway.metering import Runs, metrics_of
from safelight.observing import stages
from safelight.observing.stages import StageDone, take_ended
from safelight.pool import metering
from safelight.pool.messages import Ended, Memory, Pulse
from safelight.provenance.charges import Charge
from safelight.settings import reload_settings
from safelight.store.artifact import ArtifactRef
from tasks.base.recorder import Recorder, StageFacts
from tests.served import CHECKOUT

NAME = re.compile(r"\bsafelight_[a-z_]+")
RUN = "0a1b2c3d-0000-4000-8000-000000000001"


def _facts(**other):
    seconds = {"seconds": 1.5}
    result = ArtifactRef(
        uri="store:x", sha256="ab" * 32, media_type="image/png", bytes=1, metadata=seconds
    )
    given = {"status": "done", "results": (result,)} | other
    return StageFacts(
        stage_type="generate",
        name="still",
        parameters={},
        identity=EngineIdentity(engine_id="fal", version="1"),
        origin="creates",
        **given,
    )


def _value(text, name, **labels):
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return None


class Server:
    """Stands for a Prefect server that counts, or is away."""

    def __init__(self):
        self.away = False
        self.asked = 0

    def count_flow_runs(self, *, flow_run_filter):
        from safelight.errors import EngineOfflineError

        self.asked += 1
        if self.away:
            raise EngineOfflineError("x", "y")
        if flow_run_filter.next_scheduled_start_time is not None:
            return 2
        return len(flow_run_filter.state.type.any_)


@pytest.fixture
def scraped(monkeypatch):
    """Text of a worker at which everything happened once."""
    take_ended()
    charge = Charge(engine_id="fal", task="t", model="m", estimated_usd=0.25)
    recorder = Recorder()
    recorder.add(_facts(charges=(charge,)))
    recorder.add(_facts(status="cached", charges=(charge,)))
    recorder.add(_facts(status="failed", results=()))
    told = take_ended()
    assert take_ended() == []
    meter = metering.Meter()
    meter.started("cuda:0")
    meter.has_run("cuda:0")
    memory = Memory(resident_bytes=5, models=2, models_bytes=3, gpu_used_bytes=7, gpu_total_bytes=9)
    before = _text(metering.REGISTRY)
    meter.heard("cuda:0", Pulse(still_seconds=0, stages=told[:2], memory=memory))
    meter.heard("cuda:0", Ended(flow_run_id=RUN, outcome="reported", stages=told[2:]))
    return before, _text(metering.REGISTRY)


def _text(registry):
    from prometheus_client import generate_latest

    return generate_latest(registry).decode()


def test_what_stages_did_is_counted_once(scraped):
    before, after = scraped

    def more(name, **labels):
        return (_value(after, name, **labels) or 0) - (_value(before, name, **labels) or 0)

    for status in ("done", "cached", "failed"):
        assert more("safelight_stages_total", stage="generate", status=status) == 1
    assert more("safelight_cache_hits_total", stage="generate") == 1
    assert more("safelight_stage_seconds_sum", stage="generate") == 1.5
    assert more("safelight_provider_usd_total", engine="fal") == 0.25
    assert more("safelight_runs_ended_total", how="reported") == 1
    assert _value(before, "safelight_device_busy", device="cuda:0") == 1
    assert _value(after, "safelight_device_busy", device="cuda:0") == 0
    assert _value(after, "safelight_models_loaded", device="cuda:0") == 2
    assert _value(after, "safelight_gpu_memory_total_bytes", device="cuda:0") == 9


def test_a_process_that_is_gone_holds_nothing(scraped):
    metering.Meter().gone("cuda:0", had_run=True)
    text = _text(metering.REGISTRY)
    assert _value(text, "safelight_process_memory_bytes", device="cuda:0") == 0
    assert _value(text, "safelight_runs_ended_total", how="died") >= 1
    del scraped


def test_who_does_not_listen_costs_no_memory(monkeypatch):
    monkeypatch.setattr(stages, "MOST", 3)
    take_ended()
    for _ in range(9):
        stages.stage_ended("x", StageDone(stage="x", status="done", engine="e"))
    assert len(take_ended()) == 3


def test_the_server_is_asked_once_in_a_while():
    server = Server()
    runs = Runs(server)
    text = metrics_of(runs).decode()
    assert _value(text, "safelight_prefect_up") == 1
    assert _value(text, "safelight_queue") == 2
    assert _value(text, "safelight_runs", status="QUEUED") == 3
    asked = server.asked
    metrics_of(runs)
    assert server.asked == asked
    server.away = True
    away = metrics_of(Runs(server)).decode()
    assert _value(away, "safelight_prefect_up") == 0
    assert _value(away, "safelight_runs", status="QUEUED") is None


def test_workers_answer_at_the_next_free_port(volume, monkeypatch):
    monkeypatch.setattr(metering, "_serving", False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("SAFELIGHT_METRICS_PORT", str(port))
        reload_settings()
        served = metering.serve_metrics()
        assert served is not None
        server, thread = served
        try:
            assert server.server_port > port
            answer = httpx.get(f"http://127.0.0.1:{server.server_port}/metrics", trust_env=False)
            assert "safelight_stages_total" in answer.text
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
    del volume


def test_every_query_of_the_dashboard_names_metrics_that_exist(scraped):
    counting.count_request("GET", "/health", 200, 0.1)
    _, worker = scraped
    gateway = metrics_of(Runs(Server())).decode()
    known = {
        sample.name
        for text in (worker, gateway)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    board = json.loads((CHECKOUT / "infra" / "grafana" / "safelight.json").read_text())
    asked = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in NAME.findall(target["expr"])
    }
    assert len(asked) > 12
    assert asked <= known, asked - known
    shown = {name for name in known if not name.endswith(("_created", "_sum", "_count", "_bucket"))}
    buckets = {"safelight_stage_seconds_bucket", "safelight_request_seconds_bucket"}
    assert shown | buckets == asked, (shown | buckets) ^ asked
