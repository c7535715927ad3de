"""Spans of OpenTelemetry for runs and their stages, where its environment variables say whereto.

`OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` turns it on; the others of
OpenTelemetry (headers, service name, resource attributes, samplers) work as it describes them.
"""

import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from safelight.installed import version
from safelight.observing.correlating import current
from safelight.redacting import redacted

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_provider: "TracerProvider | None" = None
_run: "Span | None" = None
"""Of the run that this process has: stages end in threads that know no context."""


def wanted() -> bool:
    """Whether the environment names a collector."""
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return not disabled and any(os.environ.get(name) for name in ENDPOINTS)


def begin_tracing(service: str) -> None:
    """Send spans from now on where the environment asks for it, once a process.

    Args:
        service: which part of Safelight this process is, where `OTEL_SERVICE_NAME` says nothing.
    """
    global _provider
    if _provider is not None or not wanted():
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = os.environ.get("OTEL_SERVICE_NAME") or f"safelight-{service}"
    resource = Resource.create({SERVICE_NAME: named, SERVICE_VERSION: version("safelight")})
    # not the one of the whole process: Prefect would send spans of its own beside these
    _provider = TracerProvider(resource=resource)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))


def end_tracing() -> None:
    """Send what waits, and no more."""
    global _provider
    if _provider is not None:
        _provider.shutdown()
    _provider = None


@contextmanager
def run_span(facts: Mapping[str, str]) -> Generator[None]:
    """A span for everything inside, the parent of the stages that end meanwhile.

    Args:
        facts: its attributes.
    """
    global _run
    if _provider is None:
        yield
        return
    span = _tracer(_provider).start_span("run", attributes=_clean(facts))
    _run = span
    try:
        yield
    except BaseException as error:
        _fail(span, type(error).__name__)
        raise
    finally:
        _run = None
        span.end()


def name_run(flow: str) -> None:
    """Say of which flow the run is."""
    if _run is not None:
        _run.update_name(f"run {flow}")
        _run.set_attribute("safelight.flow", flow)


def stage_span(entry: str, seconds: float, facts: Mapping[str, object], code: str) -> None:
    """A span for a stage that has just ended.

    Args:
        entry: what the pipeline calls it.
        seconds: how long it took.
        facts: its attributes.
        code: of the error it failed with.
    """
    if _provider is None:
        return
    from opentelemetry.trace import set_span_in_context

    ended = time.time_ns()
    span = _tracer(_provider).start_span(
        f"stage {entry}",
        context=set_span_in_context(_run) if _run is not None else None,
        start_time=ended - round(seconds * 1e9),
        attributes=_clean(facts),
    )
    if code:
        _fail(span, code)
        if _run is not None:
            _fail(_run, code)
    span.end(ended)


def _tracer(provider: "TracerProvider"):  # noqa: ANN202  (opentelemetry's own type)
    return provider.get_tracer("safelight", version("safelight"))


def _fail(span: "Span", code: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR, code))


def _clean(facts: Mapping[str, object]) -> dict[str, str | int | float]:
    told = {"correlation_id": current(), **facts}
    return {
        f"safelight.{name}": value if isinstance(value, int | float) else redacted(str(value))
        for name, value in told.items()
        if value != ""
    }
