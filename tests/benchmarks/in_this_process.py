"""Flows called in the process that measures them, on a server of its own, as in a warm one."""

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def server_and_volume() -> Generator[None]:
    """A server and an empty volume: no heartbeats, no logs, no result of before."""
    os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in warm processes
    with tempfile.TemporaryDirectory() as root:
        os.environ["VOLUME_ROOT"] = root
        from prefect.settings import (
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
            PREFECT_TASKS_REFRESH_CACHE,
            temporary_settings,
        )

        from safelight.cli.server import prefect_api
        from safelight.store.results import register_results

        no_beats = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}  # as in warm processes too
        fresh = {PREFECT_TASKS_REFRESH_CACHE: True}
        with prefect_api(), temporary_settings({**no_beats, **fresh}):
            register_results()
            yield
