"""Pictures a second of a shard over a bare loop of diffusers that draws as many at once as is best.

Both draw the same small pictures with the shipped model on the CPU and write PNGs; the shard also
leaves record, manifest and result of each, and each picture has the bytes that it has alone.
"""

import json
import os
import tempfile
import time
import warnings
from pathlib import Path
from uuid import UUID

SIDE, STEPS, COUNT = 64, 8, 256
BATCHES = (16, 32, 64)
"""Sizes that the bare loop tries."""
TARGET, FLOOR = 0.85, 0.5
"""What it is to be, and below what something is broken."""
WORDS = ("a red cat", "a blue dog", "a flower", "a heart")
STARTER = Path("weights/starter")


def main() -> dict[str, float]:
    """Measure and print one JSON line; exit status 1 below the floor."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VOLUME_ROOT"] = folder
        bare = max(_bare(size, Path(folder)) for size in BATCHES)
        _sharded(0)  # finds how many go together
        ours = _sharded(10 * COUNT)
    measured = {"bare": round(bare, 2), "shard": round(ours, 2), "ratio": round(ours / bare, 3)}
    print(json.dumps({"benchmark": "shard", "target": TARGET, **measured}))  # noqa: T201
    return measured


def _bare(size: int, folder: Path) -> float:
    import torch
    from diffusers.pipelines.auto_pipeline import AutoPipelineForText2Image

    pipeline = AutoPipelineForText2Image.from_pretrained(STARTER, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)

    def draw(first: int, count: int) -> None:
        numbers = range(first, first + count)
        made = pipeline(
            prompt=[WORDS[number % len(WORDS)] for number in numbers],
            num_inference_steps=STEPS,
            width=SIDE,
            height=SIDE,
            generator=[torch.Generator().manual_seed(number) for number in numbers],
        ).images
        for number, picture in zip(numbers, made, strict=True):
            picture.save(folder / f"{number}.png")

    draw(0, size)
    started = time.perf_counter()
    for first in range(size, size + COUNT, size):
        draw(first, size)
    return COUNT / (time.perf_counter() - started)


def _sharded(first: int) -> float:
    from flows import shard
    from flows.batching.shards import Shard, Sharded
    from safelight.store.store import current_store
    from tasks.base.recorder import recording

    requests = tuple(
        Sharded(
            number=number,
            where=f"request {number}",
            run_id=str(UUID(int=number)),
            parameters={
                "prompt": WORDS[number % len(WORDS)],
                "seed": number,
                "width": SIDE,
                "height": SIDE,
                "steps": STEPS,
            },
        )
        for number in range(first, first + COUNT)
    )
    with recording(lambda *_: None):
        started = time.perf_counter()
        outcomes = shard.worked_through(Shard(flow="generate", retries=1, requests=requests))
        current_store().settle()
        seconds = time.perf_counter() - started
    if any(outcome.state != "succeeded" for outcome in outcomes.values()):
        raise RuntimeError("not every picture was drawn")
    return COUNT / seconds


if __name__ == "__main__":
    raise SystemExit(main()["ratio"] < FLOOR)
