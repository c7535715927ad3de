"""The gateway's application: routes, errors, and what it shares with the Prefect server."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager, suppress

from anyio.to_thread import run_sync
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from prefect.settings import get_current_settings
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from safelight.client.asking import patient_client
from safelight.errors import DependencyMissingError, PipelineError
from safelight.gateway import (
    audit_routes,
    batch_routes,
    character_routes,
    job_routes,
    metrics_routes,
    offer_routes,
    openai_edits,
    openai_routes,
    openai_videos,
    upload_routes,
    webui_routes,
)
from safelight.gateway.correlating import Correlated
from safelight.gateway.earlier import generation, media_lab, operations, preset_pipelines
from safelight.gateway.guard import Guard
from safelight.gateway.hooks import routes as hook_routes
from safelight.gateway.page import router as page
from safelight.gateway.problems import (
    Problem,
    on_http_exception,
    on_invalid_request,
    on_pipeline_error,
)
from safelight.gateway.shared import shared_by
from safelight.gateway.signin import routes as signin_routes
from safelight.gateway.signin.recognising import Recognising
from safelight.gateway.signin.refusals import Refusals
from safelight.gateway.transitions import Transitions
from safelight.gateway.workflows import contract_of, flows_of
from safelight.installed import version
from safelight.workflows.files import workflow_of

PATIENCE_SECONDS = 3.0
"""A server that is away for longer is said to be: callers ask again by themselves."""


def create_app(*, signed_in: bool = False) -> ASGIApp:
    """The gateway behind its guard; the configured Prefect server is asked from its start on.

    Args:
        signed_in: whether callers have to sign in whatever is configured.
    """
    return guarded(create_api(), signed_in=signed_in)


def guarded(api: ASGIApp, *, signed_in: bool = False) -> ASGIApp:
    """The routes behind all that stands before them."""
    return Correlated(Refusals(Guard(Recognising(api, always=signed_in), signed_in=signed_in)))


def create_api() -> FastAPI:
    """The routes alone, for whoever wants their description."""
    api = FastAPI(
        title="Safelight",
        version=version("safelight"),
        summary="Image and video pipelines that can be trusted to finish.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # their pages load scripts from other hosts
        redoc_url=None,
        lifespan=_lifespan,
        responses={
            "4XX": {"model": Problem, "description": "What the caller can mend."},
            "5XX": {"model": Problem, "description": "What the operator can mend."},
        },
        generate_unique_id_function=_named,
        redirect_slashes=False,
    )
    api.include_router(signin_routes.router)
    api.include_router(audit_routes.router)
    api.include_router(audit_routes.costs)
    api.include_router(offer_routes.router)
    api.include_router(upload_routes.router)
    api.include_router(job_routes.router)
    api.include_router(batch_routes.router)
    api.include_router(hook_routes.router)
    api.include_router(webui_routes.router)
    for openai in (openai_routes, openai_edits, openai_videos):
        api.include_router(openai.router)
    api.include_router(metrics_routes.router)
    api.include_router(character_routes.router)
    api.include_router(character_routes.training)
    for earlier in (media_lab, preset_pipelines, generation, operations):
        api.include_router(earlier.router)
    api.include_router(page.router)
    api.add_exception_handler(PipelineError, on_pipeline_error)
    api.add_exception_handler(RequestValidationError, on_invalid_request)
    api.add_exception_handler(HTTPException, on_http_exception)
    api.add_exception_handler(Exception, on_pipeline_error)
    return api


def _named(route: APIRoute) -> str:
    return route.name


@asynccontextmanager
async def _lifespan(api: FastAPI) -> AsyncGenerator[None]:
    if get_current_settings().api.url is None:  # Prefect's client would start a server of its own
        raise DependencyMissingError(
            "no Prefect server is configured", "set PREFECT_API_URL, or run: safelight gateway"
        )
    with ExitStack() as stack:
        client = stack.enter_context(patient_client(PATIENCE_SECONDS, stops=False))
        shared = api.state.shared = shared_by(client)
        works = (shared.following.run(), shared.sender.run(), Transitions(client).run())
        beside = [asyncio.create_task(work) for work in works]
        await run_sync(_load)
        try:
            yield
        finally:
            for each in beside:
                each.cancel()
            for each in beside:
                with suppress(asyncio.CancelledError):
                    await each


def _load() -> None:
    """Load the flows, so that the first caller does not wait for them."""
    for flow in flows_of():
        if workflow_of(flow) is None:  # those of files are loaded when they are asked for
            contract_of(flow)
