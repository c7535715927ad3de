"""A batch in shards whose processes and workers are killed again and again: each request once.

Its requests draw with the starter model, and note when they begin to. What was noted and had left
no manifest when its process was gone may be drawn anew; nothing else.
"""

import random
import shutil
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import psutil
import pytest

from safelight.provenance.batches import BatchOutcome, load_report
from safelight.provenance.manifest import BY_ARTIFACT, MANIFESTS, load_manifest
from safelight.store.store import current_store
from tests.benchmarks.many import CHECKOUT, PACKAGES
from tests.prefect_pool import Pool, Project, eventually

SEED = 17
SIZE = 64
PATIENCE = 300.0
ENDS_SECONDS = 5.0
"""In which processes notice that their worker is gone."""
STAGE = '''
"""Draws a picture, and notes that it begins to."""

import os
import time

from pydantic import Field

from safelight.engines.diffusion import Drawing, draw
from safelight.engines.interface import DrawRequest
from safelight.params import Params
from safelight.store.artifact import ArtifactRef
from safelight.weights.checkpoints import find_checkpoint
from tasks.base.keeping import keep_image, record_of
from tasks.base.stage import stage


class SketchParams(Params):
    """What."""

    prompt: str
    """Of the picture."""
    number: int = Field(ge=0)
    """Of the request, and the seed."""


def _needs(params: SketchParams, _: object) -> tuple[DrawRequest, ...]:
    return (DrawRequest(prompt=params.prompt, seed=params.number, width=64, height=64, steps=4),)


@stage(reads={}, makes="image", origin="creates", needs=_needs)
def sketch(params: SketchParams) -> ArtifactRef:
    """Draw."""
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{params.number}\\n")
    time.sleep(float(os.environ.get("SKETCH_SECONDS", "0.15")))  # moments to kill at come in it
    card = find_checkpoint(None)
    drawing = Drawing(card=card, prompt=params.prompt, seed=params.number, steps=4)
    made = keep_image(draw(drawing, 64, 64)[0], record_of(params, []))
    with open(os.environ["NOTES"] + ".made", "a") as notes:
        notes.write(f"{os.environ.get('SKETCHER', '')} {time.monotonic()}\\n")
    return made
'''
FLOW = '''
"""A small picture."""

from flows.running.recorded import recorded_flow
from safelight.store.artifact import ArtifactRef
from tasks.sketch import SketchParams, sketch


@recorded_flow
def sketched(prompt: str, number: int) -> ArtifactRef:
    """Draw one."""
    return sketch(SketchParams(prompt=prompt, number=number))
'''


@dataclass
class Farm:
    """A worker of a device and one of batches, over a copy of the packages with one more flow."""

    pool: Pool
    batches: Pool
    spared: Counter[int] = field(default_factory=Counter[int])
    """How often a request was under way when its process was killed."""

    def run(self, key: str, count: int, kills: list[tuple[int, str]]) -> list[BatchOutcome]:
        """Draw so many, and kill when so many have begun: device, batch, or worker of either."""
        self._workers = {"device": self.pool.start_worker(), "batch": self.batches.start_worker()}
        run = self.asked(key, count)
        for begun, whom in kills:
            self._until(begun, run)
            self._kill(whom, run)
            print(f"{time.monotonic():.0f}: {whom} at {len(self.pool.project.notes)}")  # noqa: T201
        return self.outcomes(run)

    def asked(self, key: str, count: int, parallel: int = 2) -> UUID:
        """A batch of so many."""
        for flow, pool in (("sketched", self.pool), ("shard", self.pool), ("batch", self.batches)):
            deployment = pool.client.create_deployment(
                pool.client.create_flow_from_name(flow),
                name=flow,
                entrypoint=f"flows.{flow}.{flow}",
                work_pool_name=pool.name,
                job_variables={"restarts": 100},
            )
        parameters = {
            "flow": "sketched",
            "requests": [{"prompt": f"a {w} heart", "number": n} for n, w in numbered(count)],
            "shards": True,
            "sheets": False,
            "parallel": parallel,
            "retries": 10,
            "key": key,
        }
        create = self.pool.client.create_flow_run_from_deployment
        return create(deployment, parameters=parameters).id

    def outcomes(self, run: UUID) -> list[BatchOutcome]:
        """Of all its requests, once it has ended."""
        end = eventually(lambda: s if (s := self.pool.state(run)).is_final() else None, 1800)
        assert end.is_completed(), end
        return [*load_report(run).each()]

    def _until(self, begun: int, run: UUID) -> None:
        end = time.monotonic() + PATIENCE
        while len(self.pool.project.notes) < begun:
            assert time.monotonic() < end
            assert not self.pool.state(run).is_final(), (begun, self.pool.state(run))
            time.sleep(0.05)

    def _kill(self, whom: str, run: UUID) -> None:
        role = whom.removeprefix("worker of ")
        worker = self._workers[role]
        end = time.monotonic() + PATIENCE
        while not (below := psutil.Process(worker.pid).children(recursive=True)):
            state = self.pool.state(run)
            assert time.monotonic() < end, whom
            assert not state.is_final(), (whom, state)
            time.sleep(0.1)
        if role != whom:
            worker.kill()
            worker.wait()
            _, below = psutil.wait_procs(below, ENDS_SECONDS)
        for process in below:  # also what outlived its worker, as whoever restarts that one does
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(below, PATIENCE)
        if role == "device":
            self.spared.update(self._under_way())
        if role != whom:
            pool = self.pool if role == "device" else self.batches
            self._workers[role] = pool.start_worker()

    def _under_way(self) -> set[int]:
        begun = {int(each) for each in self.pool.project.notes}
        return begun - self._left()

    def _left(self) -> set[int]:
        """Requests that have left a manifest that says that they were done."""
        found: set[int] = set()
        for key in current_store().backend.list(MANIFESTS):
            if key.startswith(BY_ARTIFACT):
                continue
            manifest = load_manifest(key)
            if manifest.flow == "sketched" and manifest.success:
                found.add(int(str(manifest.parameters["number"])))
        return found


def numbered(count: int) -> list[tuple[int, str]]:
    colours = ("red", "blue", "green", "black", "yellow")
    return [(n, colours[n % len(colours)]) for n in range(count)]


@pytest.fixture
def farm(
    pool: Pool,
    batches: Pool,
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Farm:
    checkout = tmp_path / "checkout"
    for package in PACKAGES:
        left_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CHECKOUT / package, checkout / package, ignore=left_out)
    for folder in ("weights", "workflows"):
        if (CHECKOUT / folder).exists():
            (checkout / folder).symlink_to(CHECKOUT / folder)
    (checkout / "tasks" / "sketch.py").write_text(STAGE)
    (checkout / "flows" / "sketched.py").write_text(FLOW)
    project.environment["PYTHONPATH"] = str(checkout)
    monkeypatch.chdir(checkout)
    return Farm(pool, batches)


def made(outcomes: list[BatchOutcome]) -> dict[int, str]:
    return {each.number: each.results[0].sha256 for each in outcomes}


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("count", "times"), [(60, 6), (500, 30)])
def test_killed_again_and_again_each_request_is_in_the_report_once_and_is_what_it_is_undisturbed(
    farm: Farm, count: int, times: int
):
    chosen = random.Random(SEED)
    whom = ("device", "batch", "device", "batch", "worker of device", "worker of batch")
    moments = sorted(chosen.randrange(1, count) for _ in range(times))
    kills = [(begun, chosen.choice(whom)) for begun in moments]
    began = time.monotonic()
    disturbed = farm.run("disturbed", count, kills)
    seconds = time.monotonic() - began
    assert [each.number for each in disturbed] == [*range(1, count + 1)]
    assert {each.state for each in disturbed} == {"succeeded"}
    drawn = Counter(map(int, farm.pool.project.notes))
    assert set(drawn) == set(range(count))
    again = {n: times - 1 for n, times in drawn.items() if times > 1}
    print(  # noqa: T201
        f"{count} requests, {Counter(w for _, w in kills)}: {seconds:.0f} s, "
        f"{sum(again.values())} drawn again of {sum(farm.spared.values())} under way"
    )
    assert {n: more for n, more in again.items() if more > farm.spared[n]} == {}
    assert made(disturbed) == undisturbed(farm, count)


def undisturbed(farm: Farm, count: int) -> dict[int, str]:
    """The same requests over an empty store, and nobody is killed."""
    for worker in (*farm.pool.workers, *farm.batches.workers):
        with suppress(ProcessLookupError):
            worker.terminate()
        worker.wait()
    volume = current_store().backend
    for name in ("outputs", "cache"):
        folder: Path = volume.path(name)  # pyright: ignore[reportAttributeAccessIssue]
        folder.rename(folder.with_name(f"{name}-before"))
    farm.pool.project.notes_file.write_text("")
    outcomes = farm.run("undisturbed", count, [])
    assert Counter(map(int, farm.pool.project.notes)) == Counter(range(count))
    return made(outcomes)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_of_two_workers_the_faster_gets_more_and_both_end_together(farm: Farm):
    count = 600
    farm.pool.start_worker("slow", SKETCHER="slow", SKETCH_SECONDS="0.75")
    farm.pool.start_worker("fast", SKETCHER="fast", SKETCH_SECONDS="0.25")
    farm.batches.start_worker("batches")
    outcomes = farm.outcomes(farm.asked("speeds", count, parallel=4))
    assert {each.state for each in outcomes} == {"succeeded"}
    made: dict[str, list[float]] = {"slow": [], "fast": []}
    for line in Path(f"{farm.pool.project.notes_file}.made").read_text().splitlines():
        who, at = line.split()
        made[who].append(float(at))
    slow, fast = made["slow"], made["fast"]
    assert len(slow) + len(fast) == count
    whole = max(slow + fast) - min(slow + fast)
    apart = abs(max(slow) - max(fast))
    print(f"{len(fast)} and {len(slow)} in {whole:.0f} s, ends {apart:.1f} s apart")  # noqa: T201
    assert len(fast) > len(slow)
    assert apart <= 0.05 * whole
