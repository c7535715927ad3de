"""`python -m tests.soak.night --minutes 60`: a farm's night in an hour, with nobody looking.

`safelight up` with a schedule each minute and a batch, a second worker, faults at random moments,
stops and starts of everything; then a look at what is left, at memory and at the logs.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

from tests.soak.farm import FINAL, Farm

FAULTS_AN_HOUR = 40
STOPS = 3
REQUESTS = 300
CALM_SECONDS = 300.0
"""So long nothing may end before the night is called stuck."""
GROWTH = 1.2
"""Of memory, from the second sixth of the night to its last."""
SLACK_MIB = 40.0
LINES_A_MINUTE, REPEATS = 200, 10
DRAWN: dict[str, Any] = {"width": 64, "height": 64, "guidance_scale": 2, "steps": 4}
_CHANGING = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+")
"""What differs between two lines that say the same."""


@dataclass
class Night:
    """What happened, and what should not have."""

    minutes: float
    draw: random.Random
    farm: Farm
    mark: str
    facts: dict[str, str] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    """Seconds since the beginning, and bytes of all processes."""
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """The whole of it."""
        farm = self.farm
        farm.start()
        deployment = farm.deployment("generate")
        schedule = farm.ask(
            "POST",
            f"/deployments/{deployment}/schedules",
            [
                {
                    "schedule": {"cron": "* * * * *"},
                    "active": True,
                    "parameters": {**DRAWN, "prompt": "a red heart"},
                }
            ],
        )[0]["id"]
        began = datetime.now(UTC)
        farm.start_worker()
        batch = self._begin_batch()
        measuring = threading.Thread(target=self._measure)
        measuring.start()
        try:
            self._break_things()
        finally:
            self.over.set()
            measuring.join()
        ended = datetime.now(UTC)
        farm.ask("PATCH", f"/deployments/{deployment}/schedules/{schedule}", {"active": False})
        self._wait_until_calm()
        self._look_at_runs(deployment, began, ended)
        self._look_at_batch(batch)
        self._look_at_logs((ended - began).total_seconds() / 60)
        self._look_at_memory()
        farm.stop()
        if farm.stop_worker() is None:
            self.violations.append("the second worker did not end when it was told to")
        self._look_at_what_is_left()

    def _begin_batch(self) -> str:
        rows = [json.dumps({"prompt": f"a red heart {n}", "seed": n}) for n in range(REQUESTS)]
        file = self.farm.volume / "uploads" / "night.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(rows))
        return self.farm.create(
            "batch",
            {
                "flow": "generate",
                "file": "uploads/night.jsonl",
                "parameters": DRAWN,
                "key": f"night-{self.mark}",
                "retries": 3,
            },
        )

    def _break_things(self) -> None:
        seconds = self.minutes * 60
        end = time.monotonic() + seconds
        count = max(3, round(FAULTS_AN_HOUR * self.minutes / 60))
        faults: list[Callable[[], str]] = [
            self.draw.choice([self._kill_process, self._kill_worker, self._silence, self._cancel])
            for _ in range(count)
        ]
        stops = [self._stop, self._stop_twice, self._kill_all][:STOPS]
        for at, stop in enumerate(stops, 1):
            faults.insert(at * len(faults) // (len(stops) + 1), stop)
        for number, fault in enumerate(faults):
            left = (end - time.monotonic()) / (len(faults) - number)
            time.sleep(max(0.0, self.draw.uniform(0.6, 1.0) * left))
            name = fault.__name__.strip("_")
            self.farm.say(f"fault {number} {name}: {fault()}")
            key = f"fault: {name}"
            self.facts[key] = str(int(self.facts.get(key, "0")) + 1)
        time.sleep(max(0.0, end - time.monotonic()))

    def _kill_process(self) -> str:
        found = self.farm.processes("safelight.pool.child")
        if not found:
            return "nothing"
        chosen = self.draw.choice(found)
        with suppress(psutil.Error):
            chosen.kill()
        return str(chosen.pid)

    def _kill_worker(self) -> str:
        self.farm.kill_worker()
        time.sleep(self.draw.uniform(0, 5))
        self.farm.start_worker()
        return "the second worker"

    def _silence(self) -> str:
        seconds = self.draw.uniform(5, 40)
        self.farm.silence_server(seconds)
        return f"{seconds:.0f} s"

    def _cancel(self) -> str:
        running = self.farm.runs({"state": {"type": {"any_": ["RUNNING", "PENDING"]}}})
        running = [run for run in running if run["auto_scheduled"]]
        if not running:
            return "nothing"
        run = self.draw.choice(running)["id"]
        self.farm.ask("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
        return run

    def _stop(self) -> str:
        status = self.farm.stop()
        self.farm.start()
        return f"ended with {status}"

    def _stop_twice(self) -> str:
        status = self.farm.stop(twice_after=self.draw.uniform(0.5, 5))
        self.farm.start()
        return f"ended with {status}"

    def _kill_all(self) -> str:
        self.farm.kill()
        time.sleep(self.draw.uniform(0, 3))
        self.farm.start()
        return "SIGKILL"

    def _measure(self) -> None:
        began = time.monotonic()
        while not self.over.wait(5):
            total = 0
            for process in self.farm.processes():
                with suppress(psutil.Error):
                    total += process.memory_info().rss
            self.memory.append((time.monotonic() - began, total))

    def _wait_until_calm(self) -> None:
        began = since = time.monotonic()
        left = -1
        while time.monotonic() - since < CALM_SECONDS:
            now = len(self.farm.unfinished())
            if now == 0:
                break
            if now != left:
                left, since = now, time.monotonic()
            time.sleep(2)
        self.facts["calm after"] = f"{time.monotonic() - began:.0f} s"

    def _look_at_runs(self, deployment: str, began: datetime, ended: datetime) -> None:
        for run in self.farm.unfinished():
            self.violations.append(f"run {run['id']} {run['name']} is {run['state']['name']}")
        planned = [
            run
            for run in self.farm.runs({"deployment_id": {"any_": [deployment]}})
            if run["auto_scheduled"]
        ]
        due = Counter(run["expected_start_time"][:16] for run in planned)
        minute = began.replace(second=0, microsecond=0) + timedelta(minutes=3)
        while minute < ended - timedelta(minutes=1):
            if due[f"{minute:%Y-%m-%dT%H:%M}"] != 1:
                self.violations.append(
                    f"{due[f'{minute:%Y-%m-%dT%H:%M}']} runs for {minute:%H:%M}, expected one"
                )
            minute += timedelta(minutes=1)
        for run in planned:
            states = self.farm.ask("GET", f"/flow_run_states/?flow_run_id={run['id']}")
            ends = [state["name"] for state in states if state["type"] in FINAL]
            if run["state_type"] in FINAL and len(ends) != 1:
                self.violations.append(f"run {run['id']} has the outcomes {ends}")
        self.facts["planned runs"] = str(
            dict(Counter(run["state"]["name"] for run in planned if run["state_type"] in FINAL))
        )

    def _look_at_batch(self, batch: str) -> None:
        state = self.farm.ask("GET", f"/flow_runs/{batch}")["state"]
        self.facts["batch"] = f"{state['name']} {(state['message'] or '')[:120]}"
        if state["type"] != "COMPLETED":
            self.violations.append(f"the batch is {state['name']}: {state['message']}")
        requests = self.farm.runs({"tags": {"all_": [f"batch:night-{self.mark}"]}})
        done = [run for run in requests if run["state_type"] == "COMPLETED"]
        seeds = Counter(run["parameters"]["seed"] for run in done)
        self.facts["requests"] = f"{len(requests)} runs, {len(seeds)} of {REQUESTS} completed"
        missing = set(range(REQUESTS)) - set(seeds)
        twice = [seed for seed, count in seeds.items() if count > 1]
        if missing or twice:
            self.violations.append(f"requests without an outcome {missing}, with two {twice}")

    def _look_at_logs(self, minutes: float) -> None:
        lines = self.farm.log_lines()
        rate = len(lines) / minutes
        self.facts["log lines a minute"] = f"{rate:.0f}"
        if rate > LINES_A_MINUTE:
            self.violations.append(f"{rate:.0f} log lines a minute, at most {LINES_A_MINUTE}")
        same = Counter(_CHANGING.sub("#", line) for line in lines if line.strip())
        same["Worker 'second' started!"] -= self.farm.worker_starts  # the faults had it start anew
        # a line each for a run or a fault is no repetition
        often = {line: n for line, n in same.items() if n > REPEATS and not _of_a_run(line)}
        for line, count in sorted(often.items(), key=lambda item: -item[1])[:10]:
            self.violations.append(f"{count} times in the logs: {line[:200]}")

    def _look_at_memory(self) -> None:
        if len(self.memory) < 12:
            return
        span = self.memory[-1][0]
        early = [used for at, used in self.memory if span / 6 <= at < span / 3]
        late = [used for at, used in self.memory if at >= span * 5 / 6]
        before, after = max(early) / 2**20, max(late) / 2**20
        self.facts["memory"] = f"{before:.0f} MiB, in the end {after:.0f} MiB"
        if after > before * GROWTH + SLACK_MIB:
            self.violations.append(f"memory grew from {before:.0f} to {after:.0f} MiB")

    def _look_at_what_is_left(self) -> None:
        end = time.monotonic() + 30
        while (left := self.farm.processes()) and time.monotonic() < end:
            time.sleep(0.5)
        for process in left:
            with suppress(psutil.Error):
                self.violations.append(f"left: {process.pid} {' '.join(process.cmdline())[:200]}")
        half = [*self.farm.volume.rglob("work-*"), *self.farm.volume.rglob(".unfinished/*")]
        self.violations += [f"half made: {path}" for path in half]

    def table(self) -> str:
        """For people."""
        rows = [*sorted(self.facts.items()), ("violations", str(len(self.violations)))]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _of_a_run(line: str) -> bool:
    """Whether a line tells of one run by its id or name: each run may have its own."""
    return (
        "flow run" in line.lower()
        or "task run" in line.lower()
        or "#" in line.partition(" - ")[2][:60]
    )


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.night", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None, help="drawn when left out")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seed = chosen.seed if chosen.seed is not None else time.time_ns() % 1_000_000
    folder = Path(tempfile.mkdtemp(prefix=f"night-{seed}-"))
    print(f"{chosen.minutes:g} minutes, seed {seed}, logs in {folder}", flush=True)  # noqa: T201
    mark = uuid4().hex[:12]
    with Farm(folder, mark) as farm:
        night = Night(chosen.minutes, random.Random(seed), farm, mark)
        night.run()
    print(night.table())  # noqa: T201
    for violation in night.violations:
        print(f"VIOLATION {violation}")  # noqa: T201
    if not night.violations:
        shutil.rmtree(folder)
    return 1 if night.violations else 0


if __name__ == "__main__":
    sys.exit(main())
