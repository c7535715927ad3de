"""A real ComfyUI through everything that can happen to it: `python -m tests.soak.comfy`.

Needs SAFELIGHT_COMFY_DIR (and SAFELIGHT_COMFY_PYTHON) with any checkpoint of SD 1.5 in it, a tiny
one for a CPU. It is started here, in a volume of its own. Prints a JSON line for each bar with its
seconds; the exit status is 1 when one was missed.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.benchmarks.comfy import graph_of
from tests.engines.comfy.comfy_server import RECORDED

SIDE, STEPS, LONG = 64, 2, 400
"""A run of two steps is short, one of 400 long enough to be hit in its middle."""
WORKERS, EACH = 2, 10


def main() -> int:
    """Try all; 1 when one of them ended otherwise than it should."""
    if sys.argv[1:2] == ["worker"]:
        return _worker(int(sys.argv[2]))
    with tempfile.TemporaryDirectory() as root:
        os.environ["VOLUME_ROOT"] = root
        from safelight.engines.comfy.managed import managed

        began = time.monotonic()
        managed().require()
        _say("start", began, managed().url)
        bars = Bars(Path(root), managed().url)
        missed = [name for name, bar in bars.all().items() if not _met(name, bar)]
        managed().close()
    return 1 if missed else 0


def _met(name: str, bar: Callable[[], str]) -> bool:
    began = time.monotonic()
    try:
        told = bar()
    except Exception as error:  # noqa: BLE001  (the other bars are tried too)
        _say(name, began, f"MISSED: {type(error).__name__} {error}")
        return False
    _say(name, began, told)
    return True


def _say(name: str, began: float, told: str) -> None:
    seconds = round(time.monotonic() - began, 2)
    print(json.dumps({"bar": name, "seconds": seconds, "told": told}), flush=True)  # noqa: T201


def _require(truth: object, said: str) -> None:
    if not truth:
        raise AssertionError(said)


class Bars:
    """What is tried, each by itself."""

    def __init__(self, root: Path, url: str) -> None:
        self._root = root
        self._url = url
        self._graph = graph_of(url)

    def all(self) -> dict[str, Callable[[], str]]:
        """Every bar by its name."""
        return {
            "text to image": self.text_to_image,
            "image to image": self.image_to_image,
            "the same job again": self.again,
            "cancelled in the middle": self.cancelled,
            "unknown node": self.unknown_node,
            "missing model": self.missing_model,
            "SIGKILL in the middle": self.killed,
            "20 runs of two workers": self.queued,
        }

    def drawn(self, job: str, graph: dict[str, Any], *media: Path) -> Path:
        """The one picture of a run."""
        from safelight.engines.comfy.engine import ENGINE
        from safelight.engines.graphs import GraphRequest, Place

        folder = Path(tempfile.mkdtemp(dir=self._root))
        places = (Place("10", "image"),) if media else ()
        request = GraphRequest(workflow="soak", graph=json.dumps(graph), media=places)
        (made,) = ENGINE.run_graph(request, media, job, folder)
        return made

    def graph(self, seed: int, steps: int = STEPS) -> dict[str, Any]:
        """Text to image."""
        graph = json.loads(json.dumps(self._graph))
        graph["3"]["inputs"] |= {"seed": seed, "steps": steps}
        return graph

    def text_to_image(self) -> str:
        """A picture of its size that opens as its graph."""
        with Image.open(self.drawn("t2i", self.graph(1))) as made:
            _require(made.size == (SIDE, SIDE), f"{made.size}")
            kept = json.loads(made.text["prompt"])  # pyright: ignore
        _require(kept["3"]["inputs"]["seed"] == 1, "the graph is not in the file")
        return f"{SIDE} px, {STEPS} steps"

    def image_to_image(self) -> str:
        """Another picture for another source."""
        graph = json.loads(json.dumps(RECORDED["image_graph"]))
        graph["4"] = self._graph["4"]
        graph["3"]["inputs"]["steps"] = STEPS
        made: list[bytes] = []
        for at, level in enumerate((40, 200)):
            source = self._root / f"source-{at}.png"
            Image.fromarray(np.full((SIDE, SIDE, 3), level, np.uint8)).save(source)
            made.append(self.drawn(f"i2i-{at}", graph, source).read_bytes())
        _require(made[0] != made[1], "the source changed nothing")
        return "two sources, two pictures"

    def again(self) -> str:
        """A job whose result is there is not sent again."""
        began = time.monotonic()
        first = self.drawn("t2i", self.graph(1))
        _require(first.stat().st_size > 0, "nothing came")
        return f"found after {time.monotonic() - began:.2f} s"

    def cancelled(self) -> str:
        """It stops, its queue is empty, and the next run is well."""
        from safelight.progress import StopRequestedError, clear_stop, request_stop, watching

        steps: list[int] = []
        stopped: list[float] = []

        def hit(done: int, total: int) -> None:
            steps.append(done)
            if done > total // 2 and not stopped:  # its sampler is at work
                stopped.append(time.monotonic())
                threading.Thread(target=request_stop).start()

        try:
            with watching(hit):
                self.drawn("cancel", self.graph(2, LONG))
            raise AssertionError("it went to its end")
        except StopRequestedError:
            took = time.monotonic() - stopped[0]
        finally:
            clear_stop()
        ends = time.monotonic() + 60
        while self._busy():
            _require(time.monotonic() < ends, "it still works")
            time.sleep(0.1)
        idle = time.monotonic() - stopped[0]
        self.drawn("after", self.graph(3))
        return f"gave back after {took:.2f} s, the server was idle after {idle:.2f} s"

    def unknown_node(self) -> str:
        """Named, and nothing is sent."""
        graph = self.graph(4)
        graph["8"]["class_type"] = "VAEDecodeFancy"
        return self._refused("unknown", graph, "DEPENDENCY_MISSING", "VAEDecodeFancy")

    def missing_model(self) -> str:
        """Named, with those that there are."""
        graph = self.graph(5)
        graph["4"]["inputs"]["ckpt_name"] = "mine.safetensors"
        return self._refused("missing", graph, "DEPENDENCY_MISSING", "mine.safetensors")

    def killed(self) -> str:
        """The run fails as one that may be tried again; the try after that ends well."""
        from safelight.engines.comfy.managed import managed
        from safelight.errors import PipelineError
        from safelight.progress import watching

        killed: list[float] = []

        def hit(done: int, total: int) -> None:
            pid = managed().pid
            if done > total // 2 and not killed and pid is not None:
                killed.append(time.monotonic())
                os.kill(pid, signal.SIGKILL)

        try:
            with watching(hit):
                self.drawn("kill", self.graph(6, LONG))
            raise AssertionError("it went to its end")
        except PipelineError as error:
            _require((error.code, error.transient) == ("ENGINE_OFFLINE", True), str(error))
        told = time.monotonic() - killed[0]
        self.drawn("kill", self.graph(6))
        return f"told after {told:.1f} s, drawn again after {time.monotonic() - killed[0]:.1f} s"

    def queued(self) -> str:
        """Each has the picture of its own seed."""
        workers = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.soak.comfy", "worker", str(number)],
                env={**os.environ, "SAFELIGHT_COMFY_URL": self._url},
            )
            for number in range(WORKERS)
        ]
        codes = [worker.wait() for worker in workers]
        _require(codes == [0] * WORKERS, f"workers ended with {codes}")
        return f"{WORKERS * EACH} pictures, each of its own seed"

    def _busy(self) -> bool:
        from safelight.engines.comfy.starting import local_server

        queue = local_server(self._url).answer("GET", "/queue")
        return any(queue.values())

    def _refused(self, job: str, graph: dict[str, Any], code: str, named: str) -> str:
        from safelight.errors import PipelineError

        try:
            self.drawn(job, graph)
        except PipelineError as error:
            _require(error.code == code, f"it is {error.code}")
            _require(named in error.problem, error.problem)
            return error.problem[:120]
        raise AssertionError("it was taken")


def _worker(number: int) -> int:
    """Ten runs that are all in the queue at once."""
    from concurrent.futures import ThreadPoolExecutor

    bars = Bars(
        Path(tempfile.mkdtemp(dir=os.environ["VOLUME_ROOT"])), os.environ["SAFELIGHT_COMFY_URL"]
    )

    def one(at: int) -> bool:
        seed = 100 * (number + 1) + at
        with Image.open(bars.drawn(f"queued-{seed}", bars.graph(seed))) as made:
            return json.loads(made.text["prompt"])["3"]["inputs"]["seed"] == seed  # pyright: ignore

    with ThreadPoolExecutor(EACH) as pool:
        return 0 if all(pool.map(one, range(EACH))) else 1


if __name__ == "__main__":
    sys.exit(main())
