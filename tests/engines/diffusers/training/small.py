"""Trainings that take a moment: a random model, three pictures, few steps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from safelight.engines.diffusers.training import trainer
from safelight.engines.training import (
    DatasetOptions,
    Example,
    Point,
    TrainingOptions,
    TrainRequest,
)
from safelight.progress import StopRequestedError

SMALL = DatasetOptions(resolution=32, bucket_reso_steps=8)


class Kept:
    """Checkpoints in memory; stops, or dies, when it is told of a step."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.written: list[str] = []
        self.steps: list[int] = []
        self.samples: list[int] = []
        self.dies_at = dies_at

    def checkpoints(self) -> Sequence[str]:
        return sorted(self.files, reverse=True)

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def write(self, name: str, content: bytes) -> None:
        self.written.append(name)
        self.files[name] = content

    def drop(self, name: str) -> None:
        del self.files[name]

    def told(self, point: Point, losses: Sequence[float]) -> None:
        self.steps.append(point.step)
        self.losses = list(losses)

    def sampled(self, step: int, prompts: Sequence[str], pictures: Sequence[np.ndarray]) -> None:
        self.samples.append(step)
        self.pictures = list(pictures)
        if step == self.dies_at:
            raise StopRequestedError("stopped")


def request(dataset: DatasetOptions = SMALL, model: str = "tiny", **training: object):
    options = {"network_dim": 2, "network_alpha": 4, "learning_rate": 0.01, "sample_every": 0}
    return TrainRequest(model, dataset, TrainingOptions(**{**options, **training}), seed=3)


def examples(count: int = 3) -> list[Example]:
    draw = np.random.default_rng(0)
    return [
        Example(draw.integers(0, 256, (48, 48 + 24 * (at % 2), 3), np.uint8), f"zorbo, red {at}")
        for at in range(count)
    ]


def trained(asked: TrainRequest, folder: Path, course: Kept | None = None, count: int = 3) -> bytes:
    folder.mkdir(exist_ok=True)
    data, target = folder / "data", folder / "trained"
    if not data.exists():
        trainer.encode_dataset(asked, examples(count), data)
    trainer.train(asked, data, course or Kept(), target)
    return target.read_bytes()
