"""Spans of runs and stages, as a collector of OpenTelemetry gets them."""

import threading

import pytest

from safelight.observing import tracing
from safelight.observing.correlating import process_correlated
from safelight.observing.stages import StageDone, stage_ended
from tests.observing.collector import collecting


@pytest.fixture
def collector(monkeypatch):
    with collecting() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield server
        tracing.end_tracing()


def test_stages_are_spans_of_their_run(collector):
    tracing.begin_tracing("process")
    with process_correlated("mine-7"), tracing.run_span({"flow_run_id": "r", "token": "x"}):
        tracing.name_run("portrait")
        done = StageDone(stage="generate", status="done", engine="diffusers", seconds=2.0)
        thread = threading.Thread(target=stage_ended, args=("still", done))
        thread.start()
        thread.join()
        failed = StageDone(stage="upscale", status="failed", engine="realesrgan")
        stage_ended("upscale", failed, "OUT_OF_MEMORY")
    tracing.end_tracing()
    run, resource = collector.spans["run portrait"]
    still, _ = collector.spans["stage still"]
    upscale, _ = collector.spans["stage upscale"]
    assert resource["service.name"] == "safelight-process"
    assert still.parent_span_id == upscale.parent_span_id == run.span_id
    assert still.trace_id == run.trace_id
    assert still.end_time_unix_nano - still.start_time_unix_nano == 2_000_000_000
    told = {a.key: a.value.string_value for a in still.attributes}
    assert told["safelight.engine"] == "diffusers"
    assert told["safelight.correlation_id"] == "mine-7"
    assert (upscale.status.code, upscale.status.message) == (2, "OUT_OF_MEMORY")
    assert (run.status.code, run.status.message) == (2, "OUT_OF_MEMORY")


def test_nothing_is_sent_unless_the_environment_says_whereto(monkeypatch):
    for name in tracing.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    tracing.begin_tracing("process")
    assert tracing._provider is None
    with tracing.run_span({}):
        stage_ended("x", StageDone(stage="x", status="done", engine="e"))
    monkeypatch.setenv(tracing.ENDPOINTS[0], "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not tracing.wanted()
