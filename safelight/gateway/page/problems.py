"""Refusals as people see them: a card on the page, or in place of the part that was asked for."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from safelight.errors import PipelineError
from safelight.gateway.page.rendering import shown_page, shown_part
from safelight.gateway.problems import STATUSES
from safelight.provenance.manifest import Failure

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PageRoute(APIRoute):
    """A route of the page: its refusals are shown to people; those of its JSON stay as they are."""

    def get_route_handler(self) -> Handler:
        """The handler with refusals as HTML."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except PipelineError as error:
                if request.method != "GET" and "HX-Request" not in request.headers:
                    raise
                return refused(request, error)

        return handled


def refused(request: Request, error: PipelineError) -> Response:
    """A refusal as HTML: a part where a part was asked for."""
    status = getattr(error, "status", STATUSES.get(error.code, 500))
    failure = Failure.of(error)
    if "HX-Request" in request.headers:
        return shown_part(request, "problem", failure=failure, status=status)
    answer = shown_page(request, "problem", "", failure=failure)
    answer.status_code = status
    return answer
