"""What a warm process keeps of Prefect from run to run: settings, and open clients of its API."""

import asyncio
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx
from prefect.blocks.core import Block
from prefect.client.schemas.objects import FlowRun
from prefect.context import (
    AsyncClientContext,
    SettingsContext,
    SyncClientContext,
    get_settings_context,
)
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow, load_flow_from_flow_run
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, Settings

from safelight.client.asking import keep_client
from safelight.observing.correlating import name_id
from safelight.pool import prefect_internals as internals
from safelight.pool.freshness import Stamp, stamp_of
from safelight.store.results import RESULTS, SafelightResults

Sources = tuple[frozenset[tuple[str, str]], str, tuple[Stamp | None, ...]]
Guard = Callable[[httpx.Request], None]
Hear = Callable[[httpx.Response], None]
OF_ONE_RUN = "PREFECT__"
"""How names of environment variables begin that describe a single run."""
FILES = ("prefect.toml", "pyproject.toml", ".env")
"""Where Prefect looks for settings in the working directory."""


class ApiSession:
    """Settings and clients for the runs of one process, made again only when the settings change.

    Reading the settings and opening the four clients of a run takes longer than all its requests.

    Args:
        guard: called before each request of the clients; what it raises keeps the request back.
        hear: called with each answer that a run gets.
    """

    def __init__(self, guard: Guard, hear: Hear) -> None:
        self._guard = guard
        self._hear = hear
        self._open = ExitStack()
        self._sources: Sources | None = None
        self._results: SafelightResults | None = None
        self._profiles = get_settings_context().settings.profiles_path

    def renew(self) -> None:
        """Take over settings from the environment, the working directory and the profile.

        Raises:
            httpx.HTTPError: the server of new settings does not answer.
        """
        sources = self._found()
        if sources == self._sources:
            return
        self.close()
        # the worker gives the signs of life of its runs
        settings = Settings().copy_with_update(updates={PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
        profile = get_settings_context().profile
        with ExitStack() as stack:
            stack.enter_context(SettingsContext(profile=profile, settings=settings))
            self._client = stack.enter_context(SyncClientContext()).client
            stack.enter_context(keep_client())
            self._loop = stack.enter_context(asyncio.Runner())
            beside = self._loop.run(_opened())
            internals.before_requests(self._client, beside.client, self._named)
            internals.after_answers(self._client, self._hear)
            stack.callback(lambda: self._loop.run(beside.__aexit__(None, None, None)))
            self._open = stack.pop_all()
        self._sources = sources

    def _named(self, request: httpx.Request) -> None:
        self._guard(request)
        name_id(request)

    def close(self) -> None:
        """Close the clients."""
        self._sources = None
        self._results = None
        self._open.close()

    def load_flow_run(self, flow_run_id: UUID) -> FlowRun:
        """Read a run.

        Raises:
            httpx.HTTPError: the server does not answer.
            ObjectNotFound: there is no such run.
        """
        return self._client.read_flow_run(flow_run_id)

    def ask(self, flow_run_id: UUID) -> FlowRun | None:
        """Read a run; None when it was deleted.

        Raises:
            httpx.HTTPError: the server does not answer.
        """
        try:
            return self._client.read_flow_run(flow_run_id)
        except ObjectNotFound:
            return None

    def load_flow(self, flow_run: FlowRun) -> Flow[..., Any]:
        """Import the flow of a run's deployment, after the deployment's pull steps.

        Raises:
            Exception: whatever its modules raise when they are imported.
        """
        flow = self._loop.run(load_flow_from_flow_run(flow_run, use_placeholder_flow=False))
        if flow.result_storage == RESULTS or isinstance(flow.result_storage, SafelightResults):
            if self._results is None:  # else Prefect would ask for it at each run
                load = cast("Callable[..., SafelightResults]", Block.load)
                self._results = load(RESULTS, _sync=True)
            flow.result_storage = self._results
        return flow

    def _found(self) -> Sources:
        environment = frozenset(  # all of it, for clients heed proxies and certificates too
            entry for entry in os.environ.items() if not entry[0].startswith(OF_ONE_RUN)
        )
        folder = Path.cwd()
        files = (self._profiles, *(folder / name for name in FILES))
        return environment, str(folder), tuple(map(stamp_of, files))


async def _opened() -> AsyncClientContext:
    return await AsyncClientContext().__aenter__()
