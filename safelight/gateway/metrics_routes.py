"""The route that Prometheus reads."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from safelight.gateway.metering import metrics_of
from safelight.gateway.shared import Everything

router = APIRouter()


@router.get(
    "/metrics",
    tags=["gateway"],
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Text of Prometheus."}},
)
def read_metrics(shared: Everything) -> Response:
    """Counts for Prometheus: requests, runs by status, the queue."""
    return Response(metrics_of(shared.runs), media_type=CONTENT_TYPE_LATEST)
