"""The services of infra/compose/compose.yaml as processes of this machine.

Commands, environment and secrets are those of the file; only addresses and folders differ.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.infra.environments import CHECKOUT, INFRA, load
from tests.store.servers import free_ports, until

(FILE,) = load(INFRA / "compose" / "compose.yaml")
ENTRY_POINT = str(INFRA / "docker" / "entrypoint.sh")
DEFAULT = re.compile(r"\$\{\w+:-([^}]*)\}")
START_SECONDS = 150.0
STOP_SECONDS = 20.0


class Composed:
    """Starts services and stops them; a context manager.

    Args:
        folder: of everything they write; `make_secrets` has run in it.
        postgres: port on loopback.
        redis: port on loopback.
        s3: http://host:port.
    """

    def __init__(self, folder: Path, *, postgres: int, redis: int, s3: str) -> None:
        self.folder = folder
        self.postgres = postgres
        self.api_ports = dict(zip(("server", "server-2"), free_ports(2), strict=True))
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._health_ports: dict[str, int] = {}
        self._addresses = {
            "/run/secrets": str(folder / "secrets"),
            "/models": str(folder / "models"),
            "//server:4200": f"//127.0.0.1:{self.api_ports['server']}",
            "//s3:8333": s3.removeprefix("http:"),
        }
        self._database = {
            "PREFECT_SERVER_DATABASE_HOST": "127.0.0.1",
            "PREFECT_SERVER_DATABASE_PORT": str(postgres),
        }
        url = folder / "secrets" / "redis_url"
        moved = url.read_text().replace("@redis:6379", f"@127.0.0.1:{redis}")
        url.unlink()
        url.write_text(moved)

    def __enter__(self) -> "Composed":
        return self

    def __exit__(self, *_: object) -> None:
        for name, process in self.running.items():
            if name.startswith("worker"):
                os.killpg(process.pid, signal.SIGKILL)  # their warm processes end by themselves
            elif process.poll() is None:
                process.terminate()
        for process in self.running.values():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def environment(self, service: str, name: str) -> dict[str, str]:
        """The whole environment of a service: of this process's own only where programs lie."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        found = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "HOME": str(home),
            "OMP_NUM_THREADS": "1",
            # as the images set them
            "PREFECT_HOME": str(home / ".prefect"),
            "VOLUME_ROOT": str(home / "data"),
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
        }
        for variable, value in FILE["services"][service]["environment"].items():
            found[variable] = self._here(value)
        if "PREFECT_SERVER_DATABASE_HOST" in found:
            found |= self._database
        return found

    def start(self, service: str, name: str | None = None, **more: str) -> None:
        """Start a service; a second one of the same needs a name of its own."""
        name = name or service
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                ["sh", ENTRY_POINT, *FILE["services"][service]["command"]],
                env={**self.environment(service, name), **more},
                cwd=CHECKOUT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_server(self, name: str = "server") -> None:
        """Start an API server, `server` or `server-2`."""
        port = str(self.api_ports[name])
        listen = {"PREFECT_SERVER_API_HOST": "127.0.0.1", "PREFECT_SERVER_API_PORT": port}
        self.start("server", name, **listen)

    def start_worker(self, name: str, asks_seconds: int = 3600, **more: str) -> None:
        """Start a worker on the CPU that starts runs when it hears of them, or when it asks."""
        (self._health_ports[name],) = free_ports(1)
        self.start(
            "worker-cpu",
            name,
            PREFECT_WORKER_QUERY_SECONDS=str(asks_seconds),
            PREFECT_WORKER_WEBSERVER_HOST="127.0.0.1",
            PREFECT_WORKER_WEBSERVER_PORT=str(self._health_ports[name]),
            **more,
        )

    def wait_for_server(self, name: str = "server") -> None:
        """Wait until the health check of an API server holds."""
        self._wait(name, lambda: _succeeds(f"http://127.0.0.1:{self.api_ports[name]}/api/health"))

    def wait_for_worker(self, name: str) -> None:
        """Wait until the health check of a worker holds."""
        self._wait(name, lambda: _succeeds(f"http://127.0.0.1:{self._health_ports[name]}/health"))

    def wait_for_services(self) -> None:
        """Wait until the health check of the background services holds."""
        check = ["sh", ENTRY_POINT, "python", str(INFRA / "docker" / "services_healthy.py")]
        environment = self.environment("services", "services")

        def healthy() -> bool:
            done = subprocess.run(check, env=environment, capture_output=True, check=False)
            return done.returncode == 0

        self._wait("services", healthy)

    def wait_for_end(self, name: str) -> None:
        """Wait until a service has done all it is for."""
        assert self.running[name].wait(START_SECONDS) == 0, self.log(name)[-2000:]

    def kill(self, name: str) -> None:
        """End a service as a power cut would."""
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def log(self, name: str) -> str:
        """What a service wrote."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _wait(self, name: str, holds: Callable[[], bool]) -> None:
        def there() -> bool:
            assert self.running[name].poll() is None, self.log(name)[-2000:]
            return holds()

        until(there, START_SECONDS)

    def _here(self, value: str) -> str:
        value = DEFAULT.sub(r"\1", value)
        for theirs, ours in self._addresses.items():
            value = value.replace(theirs, ours)
        return value


def make_secrets(folder: Path) -> dict[str, str]:
    """Run the script of that name; gives name and content of each secret."""
    script = folder / "make_secrets.sh"
    shutil.copy(INFRA / "compose" / script.name, script)
    subprocess.run(["sh", script], check=True, env={"PATH": os.environ["PATH"]})
    return {path.name: path.read_text() for path in (folder / "secrets").iterdir()}


def _succeeds(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False
