"""What a worker counts of its processes, for Prometheus.

`SAFELIGHT_METRICS_PORT` has a worker answer at `/metrics`; of several on one machine each takes the
next free port.
"""

import errno
import threading
from wsgiref.simple_server import WSGIServer

from prefect.logging import get_logger
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from safelight.observing.stages import StageDone
from safelight.pool.messages import Ended, Memory, Pulse
from safelight.settings import settings

LOG = get_logger("safelight.pool")  # below Prefect's own logger, so a worker shows it
REGISTRY = CollectorRegistry()
TRIES = 10
"""Ports that are tried."""
SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
STAGES = Counter(
    "safelight_stages", "Stages that ended.", ("stage", "engine", "status"), registry=REGISTRY
)
CACHE_HITS = Counter(
    "safelight_cache_hits", "Stages whose earlier result was taken.", ("stage",), registry=REGISTRY
)
STAGE_SECONDS = Histogram(
    "safelight_stage_seconds",
    "Wall time of stages that did their work.",
    ("stage", "engine"),
    buckets=SECONDS,
    registry=REGISTRY,
)
MONEY = Counter(
    "safelight_provider_usd", "What calls to providers cost.", ("engine",), registry=REGISTRY
)
RUNS = Counter(
    "safelight_runs_ended", "Flow runs that left a process.", ("how",), registry=REGISTRY
)
BUSY = Gauge(
    "safelight_device_busy", "1 while a process has a run.", ("device",), registry=REGISTRY
)
STARTS = Counter(
    "safelight_process_starts", "Processes started, also again.", ("device",), registry=REGISTRY
)
RESIDENT = Gauge(
    "safelight_process_memory_bytes", "Resident memory.", ("device",), registry=REGISTRY
)
MODELS = Gauge("safelight_models_loaded", "Models in memory.", ("device",), registry=REGISTRY)
MODEL_BYTES = Gauge(
    "safelight_models_bytes", "Memory that models take.", ("device",), registry=REGISTRY
)
GPU_USED = Gauge(
    "safelight_gpu_memory_used_bytes",
    "Memory of the device that anyone uses.",
    ("device",),
    registry=REGISTRY,
)
GPU_TOTAL = Gauge(
    "safelight_gpu_memory_total_bytes", "All memory of the device.", ("device",), registry=REGISTRY
)
_serving = False


def serve_metrics() -> tuple[WSGIServer, threading.Thread] | None:
    """Answer Prometheus where the settings want it, once a process.

    Returns:
        What answers; None where nothing does, for want of a setting or of a free port.
    """
    global _serving
    first, host = settings().metrics_port, settings().metrics_host
    if first is None or _serving:
        return None
    for port in range(first, first + TRIES):
        try:
            served = start_http_server(port, host, registry=REGISTRY)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                LOG.warning("no metrics at %s:%d: %s", host, port, error.strerror)
                return None
        else:
            _serving = True
            LOG.info("metrics at http://%s:%d/metrics", host, port)
            return served
    LOG.warning("no metrics: the ports from %d to %d are taken", first, first + TRIES - 1)
    return None


def count_stages(stages: list[StageDone]) -> None:
    """Enter what a process told of its stages."""
    for each in stages:
        STAGES.labels(each.stage, each.engine, each.status).inc()
        if each.status == "cached":
            CACHE_HITS.labels(each.stage).inc()
        elif each.status == "done":
            STAGE_SECONDS.labels(each.stage, each.engine).observe(each.seconds)
        if each.usd and each.status != "cached":
            MONEY.labels(each.engine).inc(each.usd)


class Meter:
    """Counts what the processes of a worker tell."""

    def started(self, device: str) -> None:
        """A process was started."""
        STARTS.labels(device).inc()

    def has_run(self, device: str) -> None:
        """A process was given a run."""
        BUSY.labels(device).set(1)

    def heard(self, device: str, message: object) -> None:
        """A process said something."""
        if isinstance(message, Pulse):
            count_stages(message.stages)
            _note_memory(device, message.memory)
        elif isinstance(message, Ended):
            count_stages(message.stages)
            BUSY.labels(device).set(0)
            RUNS.labels(message.outcome).inc()

    def gone(self, device: str, *, had_run: bool) -> None:
        """A process ended, and holds nothing any more."""
        for gauge in (RESIDENT, MODELS, MODEL_BYTES, BUSY):
            gauge.labels(device).set(0)
        if had_run:
            RUNS.labels("died").inc()


def _note_memory(device: str, memory: Memory) -> None:
    RESIDENT.labels(device).set(memory.resident_bytes)
    MODELS.labels(device).set(memory.models)
    MODEL_BYTES.labels(device).set(memory.models_bytes)
    if memory.gpu_total_bytes:
        GPU_USED.labels(device).set(memory.gpu_used_bytes)
        GPU_TOTAL.labels(device).set(memory.gpu_total_bytes)
