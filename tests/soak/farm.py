"""`safelight up` and a second worker as a service manager runs them, and what one asks them."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from safelight.cli.server import free_port
from safelight.cli.server_login import basic

CHECKOUT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MARK = "SOAK_FARM"
"""Environment variable that every process of a farm carries."""
PASSWORD = "night:shift"
"""The operator's own: it outlives a server that is started again, as the second worker does."""
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
START_SECONDS = 180.0
STOP_SECONDS = 180.0
ASK_SECONDS = 120.0
PAGE = 200


class Farm:
    """All processes of one volume, each marked so that those that are left can be found."""

    def __init__(self, folder: Path, mark: str) -> None:
        self.folder = folder
        self.volume = folder / "volume"
        self._mark = mark
        self._port = free_port()
        self._began = time.monotonic()
        self._up: subprocess.Popen[bytes] | None = None
        self._worker: subprocess.Popen[bytes] | None = None
        self.worker_starts = 0
        """Of the second worker, which says so each time."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes():
            with suppress(psutil.Error):
                process.resume()
                process.kill()
        for started in (self._up, self._worker):
            if started is not None:
                started.wait()

    @property
    def url(self) -> str:
        """Of the API."""
        return f"http://127.0.0.1:{self._port}/api"

    @property
    def environment(self) -> dict[str, str]:
        """Of everything that is started."""
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
            MARK: self._mark,
            "VOLUME_ROOT": str(self.volume),
            "SAFELIGHT_POOL_DEVICES": "cpu:1",
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_API_AUTH_STRING": PASSWORD,
        }

    def say(self, text: str) -> None:
        """Write a line of the night's own log."""
        with (self.folder / "night.log").open("a") as log:
            log.write(f"{time.monotonic() - self._began:8.1f} {text}\n")

    def start(self) -> None:
        """Start `safelight up` and wait until it says that it is there."""
        log = self.folder / "up.log"
        begin = log.stat().st_size if log.exists() else 0
        with log.open("ab") as out:
            self._up = subprocess.Popen(
                [BIN / "safelight", "up", "--port", str(self._port)],
                cwd=CHECKOUT,
                env=self.environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        end = time.monotonic() + START_SECONDS
        while b"Prefect UI and API" not in log.read_bytes()[begin:]:
            assert self._up.poll() is None, f"safelight up ended, see {log}"
            assert time.monotonic() < end, f"safelight up did not start, see {log}"
            time.sleep(0.3)

    def stop(self, twice_after: float | None = None) -> int | None:
        """Tell `safelight up` to end, a second time after so many seconds; its exit status."""
        assert self._up is not None
        self._up.terminate()
        if twice_after is not None:
            time.sleep(twice_after)
            self._up.terminate()
        try:
            return self._up.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self) -> None:
        """End `safelight up` as the kernel's memory killer does, and nothing else of it."""
        assert self._up is not None
        self._up.kill()
        self._up.wait()

    def start_worker(self) -> None:
        """Start the second worker."""
        with (self.folder / "worker.log").open("ab") as out:
            self.worker_starts += 1
            self._worker = subprocess.Popen(
                [
                    *(sys.executable, "-m", "prefect", "worker", "start"),
                    *("--pool", "gpu", "--name", "second", "--type", "safelight-gpu"),
                ],
                env={**self.environment, **self.access()},
                stdout=out,
                stderr=out,
                cwd=CHECKOUT,
                start_new_session=True,
            )

    def stop_worker(self) -> int | None:
        """Tell the second worker to end, whose server is gone by now; its exit status."""
        assert self._worker is not None
        self._worker.terminate()
        try:
            return self._worker.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill_worker()
            return None

    def kill_worker(self) -> None:
        """End the second worker as a power cut would."""
        assert self._worker is not None
        self._worker.kill()
        self._worker.wait()

    def access(self) -> dict[str, str]:
        """What a client's environment needs."""
        return {"PREFECT_API_URL": self.url, "PREFECT_API_AUTH_STRING": PASSWORD}

    def silence_server(self, seconds: float) -> None:
        """Let the server answer nobody for a while."""
        servers = self.processes("prefect.server.api.server") or self.processes("prefect_server")
        for process in servers:
            with suppress(psutil.Error):
                process.suspend()
        time.sleep(seconds)
        for process in servers:
            with suppress(psutil.Error):
                process.resume()

    def processes(self, word: str = "") -> list[psutil.Process]:
        """Processes of this farm whose command line has this word in it."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) != self._mark or process.pid == os.getpid():
                    continue
                if word in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Ask the API until it answers."""
        end = time.monotonic() + ASK_SECONDS
        while True:
            try:
                answer = httpx.request(
                    method, self.url + path, json=body, timeout=30, headers=self.headers()
                )
                if answer.status_code < 500:
                    assert answer.is_success, f"{path}: {answer.status_code} {answer.text[:500]}"
                    return answer.json() if answer.content else None
            except httpx.HTTPError:
                pass
            assert time.monotonic() < end, f"the server does not answer {path}"
            time.sleep(1)

    def headers(self) -> dict[str, str]:
        """What a program that talks to the API sends with each request."""
        return {"Authorization": basic(PASSWORD)}

    def deployment(self, name: str) -> str:
        """Id of a deployment of the flow that has its name."""
        return self.ask("GET", f"/deployments/name/{name}/{name}")["id"]

    def create(self, flow: str, parameters: dict[str, Any]) -> str:
        """Ask for a run."""
        path = f"/deployments/{self.deployment(flow)}/create_flow_run"
        return self.ask("POST", path, {"parameters": parameters})["id"]

    def runs(self, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        """All runs that a filter finds."""
        found: list[dict[str, Any]] = []
        while True:
            body = {"flow_runs": wanted, "limit": PAGE, "offset": len(found), "sort": "ID_DESC"}
            page = self.ask("POST", "/flow_runs/filter", body)
            found += page
            if len(page) < PAGE:
                return found

    def unfinished(self) -> list[dict[str, Any]]:
        """Runs that are due and not over."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        left = self.runs({"state": {"type": {"not_any_": list(FINAL)}}})
        return [run for run in left if (run["expected_start_time"] or "") < now]

    def log_lines(self) -> list[str]:
        """What everything wrote."""
        files = [*self.folder.glob("*.log"), *self.volume.glob("cache/**/*.log")]
        return [
            line
            for file in files
            if file.name != "night.log"
            for line in file.read_text(errors="replace").splitlines()
        ]
