"""What orchestration costs: a pipeline's wall time over the same work done by bare calls.

Both run in one process, in turn, with models loaded and nothing taken from the cache; the fastest
round of each counts, since what else the machine does only adds. The job takes
10 s or more, so that its ratio says what a real one would be; a pipeline of stages that do almost
nothing gives the cost of one stage in milliseconds.
"""

import json
import time
from pathlib import Path

from tests.benchmarks.in_this_process import server_and_volume

ROUNDS = 4
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
JOB = [
    {"stage_type": "denoise", "name": "clean", "parameters": {"level": 0.5}},
    {
        "stage_type": "upscale",
        "name": "large",
        "parameters": {"model": "video", "upscale_factor": 3},
    },
    {"stage_type": "upscale", "name": "larger", "parameters": {"model": "video"}},
    {"stage_type": "grade", "name": "look", "parameters": {"colour": "warm", "grain": 0.2}},
]
SMALL = [
    {"stage_type": "grade", "name": f"s{i}", "parameters": {"colour": "warm"}} for i in range(10)
]


def main() -> dict[str, float]:
    """Measure and print one JSON line."""
    with server_and_volume():
        measured = _measure()
    print(json.dumps({"benchmark": "pipeline", **measured}))  # noqa: T201
    return measured


def _measure() -> dict[str, float]:
    from flows.pipelines.described import Pipeline, StageSpec
    from flows.pipelines.plan import plan_pipeline
    from tasks.base.ingest import ingest

    photo = {"image": str(EXAMPLES / "astronaut.png")}
    job = [StageSpec.model_validate(spec) for spec in JOB]
    small = [StageSpec.model_validate(spec) for spec in SMALL]

    def bare(specs: list[StageSpec]) -> float:
        plan = plan_pipeline(Pipeline(stages=tuple(specs)), photo, 1)
        started = time.perf_counter()
        ref = ingest(photo["image"], ("image",))
        for planned in plan.stages:
            ref = planned.stage.fn(ref, planned.params)
        return time.perf_counter() - started

    def orchestrated(specs: list[StageSpec]) -> float:
        from flows.pipeline import pipeline

        started = time.perf_counter()
        pipeline(stages=specs, call_input=photo, seed=1)
        return time.perf_counter() - started

    bare(job)  # loads the models
    orchestrated(small)  # warms the client
    pairs = [(bare(job), orchestrated(job)) for _ in range(ROUNDS)]
    plain, flow = (min(seconds) for seconds in zip(*pairs, strict=True))
    cheap = [(bare(small), orchestrated(small)) for _ in range(ROUNDS)]
    least_plain, least_flow = (min(seconds) for seconds in zip(*cheap, strict=True))
    return {
        "job_seconds": round(plain, 2),
        "ratio": round(flow / plain, 3),
        "milliseconds_per_stage": round(1000 * (least_flow - least_plain) / len(small), 1),
    }


if __name__ == "__main__":
    main()
