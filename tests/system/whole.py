"""The whole system at work: databases, S3, API servers, background services and two workers."""

import asyncio
import base64
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import asyncpg
import httpx

from tests.store.servers import S3Server, moto_server
from tests.system.composed import Composed, make_secrets
from tests.system.databases import postgres_server, redis_server

T = TypeVar("T")
NO_REMINDERS = {"PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "3600"}
"""Or the event that a run is late would start those whose first event was lost."""
SOON = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5"}
"""Schedules are looked at more often than each minute."""
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
PATIENCE = 120.0
"""Seconds until a test gives up; none of them measures time."""


def eventually(what: Callable[[], T]) -> T:
    """Ask a few times a second, since each question costs the server, until the answer is true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        answer = what()
        if answer:
            return answer
        time.sleep(0.3)
    raise AssertionError(f"not true within {PATIENCE:.0f} s")


class System:
    """What a person with a browser or with curl sees of the system."""

    def __init__(self, services: Composed, secrets: dict[str, str], s3: S3Server) -> None:
        self.services = services
        self.secrets = secrets
        self.s3 = s3
        self.http = self.client("server")

    def client(self, server: str, auth: str | None = None) -> httpx.Client:
        """Somebody who calls an API server with this name and password, or with the right ones."""
        told = base64.b64encode((auth or self.secrets["prefect_auth"]).encode()).decode()
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.services.api_ports[server]}/api",
            headers={"Authorization": f"Basic {told}"},
            timeout=60,
        )

    def post(self, path: str, **body: object) -> dict | list:
        """Ask the API."""
        answer = self.http.post(path, json=body)
        assert answer.is_success, f"{path}: {answer.status_code} {answer.text[:800]}"
        return answer.json()

    def deployment(self, name: str) -> str:
        """Id of a deployment of the flow that has its name."""
        answer = self.http.get(f"/deployments/name/{name}/{name}")
        assert answer.is_success, answer.text
        return answer.json()["id"]

    def start(self, flow: str, http: httpx.Client | None = None, **parameters: object) -> str:
        """Ask for a run, here or at another server."""
        path = f"/deployments/{self.deployment(flow)}/create_flow_run"
        answer = (http or self.http).post(path, json={"parameters": parameters})
        assert answer.is_success, answer.text
        return answer.json()["id"]

    def read(self, run: str) -> dict:
        """A run as the API shows it."""
        return self.http.get(f"/flow_runs/{run}").raise_for_status().json()

    def sql(self, statements: str) -> None:
        """Do something to the database behind the server's back."""

        async def execute() -> None:
            connection = await asyncpg.connect(
                host="127.0.0.1",
                port=self.services.postgres,
                user="prefect",
                password=self.secrets["postgres_password"],
                database="prefect",
            )
            await connection.execute(statements)
            await connection.close()

        asyncio.run(execute())

    def end(self, run: str) -> dict:
        """Wait for the end of a run."""
        return eventually(lambda: found if (found := self.read(run))["state_type"] in FINAL else 0)

    def cancel(self, run: str) -> None:
        """Ask a run to stop."""
        self.post(f"/flow_runs/{run}/set_state", state={"type": "CANCELLING"})

    def artifacts(self, run: str) -> list[dict]:
        """What a run left on its page."""
        return self.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [run]}})

    def computes(self, run: str) -> bool:
        """Whether a run has finished its first step and goes on."""
        shown = any(artifact["type"] == "progress" for artifact in self.artifacts(run))
        return shown and self.read(run)["state_type"] == "RUNNING"


@contextmanager
def whole_system() -> Iterator[System]:
    """All of it, started in the order of the compose file; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="safelight-system-"))
    folder.chmod(0o755)  # PostgreSQL's user passes through
    try:
        with ExitStack() as stack:
            secrets = make_secrets(folder)
            postgres = stack.enter_context(
                postgres_server(folder / "postgres", secrets["postgres_password"])
            )
            redis = stack.enter_context(redis_server(folder / "redis", secrets["redis_password"]))
            s3 = stack.enter_context(moto_server())
            services = stack.enter_context(
                Composed(folder, postgres=postgres, redis=redis, s3=s3.url)
            )
            services.start_server()
            services.wait_for_server()
            services.start("services", **NO_REMINDERS, **SOON)
            services.start("bucket")
            services.wait_for_end("bucket")
            services.start("deploy")
            services.start_server("server-2")
            services.wait_for_end("deploy")
            services.start_worker("worker-1")
            services.start_worker("worker-2")
            services.wait_for_worker("worker-1")
            services.wait_for_worker("worker-2")
            services.wait_for_server("server-2")
            services.wait_for_services()
            yield System(services, secrets, s3)
    finally:
        shutil.rmtree(folder)
