"""A gateway as people start it, over a real Prefect server with a worker of real flows."""

import asyncio
import os
import subprocess
from collections.abc import Generator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, expect
from prefect.settings import PREFECT_API_URL, temporary_settings

from safelight.client.contracts import contract, entrypoint
from safelight.gateway.app import create_api, guarded
from safelight.loopback import free_port
from safelight.settings import reload_settings
from safelight.store.store import current_store
from tests.browsing import browser  # noqa: F401
from tests.prefect_pool import Pool
from tests.served import BIN

WORKFLOWS = (
    "generate",
    "transform",
    "enhance",
    "pipeline",
    "color_grade_film_grain_v1",
    "train_lora",
    "inpaint",
    "interpolate",
    "photoreal_portrait_v1",
    "batch",
)

PATIENCE_MS = 90_000.0


@dataclass(frozen=True)
class Gateway:
    """A gateway that listens, and what stands behind it."""

    client: httpx.Client
    address: str
    volume: Path
    pool: Pool


def deploy_workflows(pool: Pool) -> None:
    for flow in WORKFLOWS:
        found = contract(flow).flow
        pool.client.create_deployment(
            pool.client.create_flow_from_name(flow),
            name=flow,
            entrypoint=entrypoint(flow),
            work_pool_name=pool.name,
            parameter_openapi_schema=found.parameters.model_dump(exclude_none=True),
        )


def start_gateway(pool: Pool, server: str, port: int) -> "subprocess.Popen[str]":
    """A gateway of this server and volume, once it listens."""
    with (pool.project.folder / "gateway.log").open("ab") as log:
        process = subprocess.Popen(
            [BIN / "safelight", "gateway", "--port", str(port)],
            env={**os.environ, **pool.project.environment, "PREFECT_API_URL": server},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    assert f"http://127.0.0.1:{port}" in process.stdout.readline()
    return process


@pytest.fixture(scope="module")
def gateway(shared_pool: Pool, prefect_server: str) -> Iterator[Gateway]:
    from examples.untrained import build_untrained

    volume = Path(shared_pool.project.environment["VOLUME_ROOT"])
    port = free_port()
    build_untrained(volume / "models" / "untrained")
    process = start_gateway(shared_pool, prefect_server, port)
    assert process.stdout is not None
    try:
        deploy_workflows(shared_pool)
        address = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
            yield Gateway(client, address, volume, shared_pool)
    finally:
        process.terminate()
        ended = process.wait(30)
        process.stdout.close()
    assert ended in (0, -15)


class Alone:
    """A gateway in this process."""

    def __init__(self, runner: asyncio.Runner, api: FastAPI, volume: Path) -> None:
        self.volume = volume
        self.api = api
        self._runner = runner
        self._app = guarded(api)

    def ask(
        self,
        method: str,
        path: str,
        *,
        base: str = "http://127.0.0.1:4300",
        peer: tuple[str, int] = ("127.0.0.1", 50000),
        **request: Any,
    ) -> httpx.Response:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, client=peer)
            async with httpx.AsyncClient(transport=transport, base_url=base) as client:
                return await client.request(method, path, **request)

        return self._runner.run(asked())


@contextmanager
def in_this_process(volume: Path, server: str) -> Generator[Alone]:
    """A gateway of this volume whose Prefect server has this address."""
    api = create_api()
    with (
        pytest.MonkeyPatch.context() as patch,
        temporary_settings({PREFECT_API_URL: server}),
        asyncio.Runner() as runner,
    ):
        patch.setenv("VOLUME_ROOT", str(volume))
        reload_settings()
        current_store.cache_clear()
        stack = AsyncExitStack()
        runner.run(stack.enter_async_context(api.router.lifespan_context(api)))
        yield Alone(runner, api, volume)
        runner.run(stack.aclose())
    reload_settings()
    current_store.cache_clear()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """One whose Prefect server is away."""
    with in_this_process(tmp_path_factory.mktemp("alone"), "http://127.0.0.1:9/api") as gateway:
        yield gateway


@pytest.fixture
def page(gateway: Gateway, browser: Browser) -> Iterator[Page]:  # noqa: F811
    """Of a person who was never here; the page must not complain.

    The gateway comes first: within Playwright's loop Prefect's blocks would save by coroutine.
    """
    expect.set_options(timeout=PATIENCE_MS)
    context = browser.new_context(
        base_url=gateway.address, viewport={"width": 1280, "height": 900}, accept_downloads=True
    )
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda said: complaints.append(said.text) if said.type == "error" else 0)
    yield opened
    context.close()
    assert [said for said in complaints if "Failed to load resource" not in said] == []
