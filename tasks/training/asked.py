"""What the stages of a training are given, and what they ask an engine for."""

from typing import Any

from pydantic import Field

from safelight.engines.training import DatasetOptions, TrainingOptions, TrainRequest


class TrainParams(TrainingOptions):
    """Which model learns, and how."""

    model: str | None = Field(default=None, min_length=1, max_length=200)
    """Name of the model; None is the first of the models folder."""
    dataset: DatasetOptions = DatasetOptions()
    """How the pictures were prepared."""
    seed: int | None = None
    """Of all that is left to chance."""


def request_of(params: TrainParams) -> TrainRequest:
    """What the engine is asked for."""
    options: dict[str, Any] = {
        name: getattr(params, name)
        for name in TrainingOptions.model_fields
        if name in params.model_fields_set
    }
    return TrainRequest(params.model, params.dataset, TrainingOptions(**options), params.seed or 0)
