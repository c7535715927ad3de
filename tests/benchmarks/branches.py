"""What branches cost: three of one DAG on one device, over the same calls one after the other.

Both run through Prefect in one process, in turn, with models loaded and nothing from the cache; the
fastest round of each counts, since what else the machine does only adds. Branches gain nothing
on one device; they must not cost either. `python -m tests.benchmarks.branches [ROUNDS] [SIDE]`.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.in_this_process import server_and_volume

ROUNDS, SIDE = 4, 512
BAR = 1.05
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
UPSCALE = {"model": "video", "upscale_factor": 2}


def stages() -> list[dict[str, Any]]:
    """Three looks of a picture, each enlarged and cleaned: three branches."""
    described: list[dict[str, Any]] = []
    for at, colour in enumerate(("warm", "cool", "cinematic")):
        steps = (
            ("grade", "look", {"colour": colour, "grain": 0.2}),
            ("upscale", "large", UPSCALE),
            ("denoise", "clean", {"level": 0.5}),
        )
        before = "image"
        for kind, name, parameters in steps:
            here = f"{name}{at}"
            described.append(
                {"stage_type": kind, "name": here, "parameters": parameters, "reads": [before]}
            )
            before = here
    return described


def main(rounds: int = ROUNDS, side: int = SIDE) -> int:
    """Measure and print one JSON line; 1 where branches cost more than the bar."""
    with server_and_volume():
        row, branches = _measure(rounds, side)
    ratio = round(branches / row, 3)
    told = {"row_seconds": round(row, 2), "branches_seconds": round(branches, 2), "ratio": ratio}
    print(json.dumps({"benchmark": "branches", **told, "bar": BAR}))  # noqa: T201
    return int(ratio > BAR)


def _measure(rounds: int, side: int) -> tuple[float, float]:
    """Fastest seconds of the same nine calls in a row, and as three branches of one DAG."""
    from PIL import Image

    from flows.pipeline import pipeline
    from flows.pipelines.described import StageSpec
    from safelight.settings import settings

    path = settings().volume_root / "uploads" / "photo.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(EXAMPLES / "astronaut.png").resize((side, side)).save(path)
    specs = [StageSpec.model_validate(spec) for spec in stages()]

    def branches() -> float:
        started = time.perf_counter()
        pipeline(stages=specs, call_input={"image": str(path)}, seed=1)
        return time.perf_counter() - started

    def row() -> float:
        """One run with the same calls, none of which has another beside it."""
        started = time.perf_counter()
        _one_by_one(specs, str(path))
        return time.perf_counter() - started

    branches()  # loads the models, warms the client
    pairs = [(row(), branches()) for _ in range(rounds)]
    first, second = (min(seconds) for seconds in zip(*pairs, strict=True))
    return first, second


def _one_by_one(specs: list[Any], photo: str) -> None:
    from flows.pipelines.described import Pipeline
    from flows.pipelines.plan import plan_pipeline
    from flows.running.recorded import recorded_flow
    from safelight.store.artifact import ArtifactRef
    from tasks.base.ingest import ingest

    @recorded_flow
    def in_a_row() -> list[ArtifactRef]:
        """The same calls, one after the other."""
        plan = plan_pipeline(Pipeline(stages=tuple(specs)), {"image": photo}, 1)
        made = {"image": ingest(photo, ("image",))}
        for planned in plan.stages:
            (before,) = planned.reads
            made[planned.name] = planned.stage.named(planned.name, made[before], planned.params)
        return [made[name] for name in plan.ends]

    in_a_row()


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
