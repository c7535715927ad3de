"""Counts the requests that the gateway answered."""

from prometheus_client import CollectorRegistry, Counter, Histogram

REGISTRY = CollectorRegistry()
REQUESTS = Counter(
    "safelight_requests",
    "Requests that were answered.",
    ("method", "route", "status"),
    registry=REGISTRY,
)
REQUEST_SECONDS = Histogram(
    "safelight_request_seconds",
    "Until the answer was sent; of events, until the listener went.",
    ("method", "route"),
    registry=REGISTRY,
)
OTHER = "other"
"""Of a request that no route took: paths of strangers would never end."""


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    """Enter an answered request."""
    REQUESTS.labels(method, route or OTHER, str(status)).inc()
    REQUEST_SECONDS.labels(method, route or OTHER).observe(seconds)
