"""The training loop: optimiser steps on a time budget, and checkpoints to go on from."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

SAVE_EVERY_SECONDS = 120.0
"""At most so much training is lost when a run is killed."""
LARGEST_GRADIENT_NORM = 1.0


@dataclass
class Clock:
    """Time spent on one part, over all runs."""

    budget_seconds: float
    spent_seconds: float

    def __post_init__(self) -> None:
        """Start counting from what earlier runs spent."""
        self._begun = time.monotonic() - self.spent_seconds

    def spent(self) -> float:
        """Seconds spent so far, earlier runs included."""
        return time.monotonic() - self._begun

    def progress(self) -> float:
        """Share of the budget spent, 0 to 1."""
        return min(1.0, self.spent() / self.budget_seconds)


@dataclass(frozen=True)
class Log:
    """The line that is printed while training."""

    every: int
    """Steps between two lines; the loss and the pace are means over them."""
    line: str
    """Format of `step`, `loss`, `pace` (seconds a step) and `minutes` (spent, all runs)."""


class WeightAverage:
    """Exponential moving average of the weights, short at first."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        """Start from the present weights."""
        self._parameters = parameters
        self.values = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the present weights.

        Args:
            step: optimiser steps taken, at least 1; the decay rises with them to 0.998.
        """
        decay = min(0.998, (step + 1) / (step + 10))
        for mean, parameter in zip(self.values, self._parameters, strict=True):
            mean.lerp_(parameter, 1 - decay)


class TrainingLoop:
    """Trains a model on a time budget; a killed run goes on at its last checkpoint."""

    def __init__(
        self,
        model: torch.nn.Module,
        optimiser: torch.optim.Optimizer,
        checkpoint: Path,
        log: Log,
        *,
        average: bool = False,
        notes: Mapping[str, object] | None = None,
    ) -> None:
        """Read the checkpoint, if there is one, into model and optimiser.

        Args:
            model: trained in place.
            optimiser: of the model's parameters.
            checkpoint: file with `model`, `optimiser`, `step` and `seconds`, written whole or
                not at all.
            log: what to print, how often.
            average: also keep the moving average of the weights, as `average`.
            notes: further entries of the checkpoint, not read back.
        """
        self._model, self._optimiser = model, optimiser
        self._parameters = [*model.parameters()]
        self._average = WeightAverage(self._parameters) if average else None
        self._checkpoint, self._log, self._notes = checkpoint, log, notes or {}
        self._step, self._seconds = 0, 0.0
        if checkpoint.exists():
            kept = torch.load(checkpoint)
            model.load_state_dict(kept["model"])
            optimiser.load_state_dict(kept["optimiser"])
            if self._average:
                self._average.values = kept["average"]
            self._step, self._seconds = kept["step"], kept["seconds"]

    def run(
        self,
        budget_seconds: float,
        learning_rate: Callable[[int, float], float],
        loss_at: Callable[[int], Tensor],
    ) -> None:
        """Take optimiser steps until the budget is spent.

        Args:
            budget_seconds: in all, earlier runs included.
            learning_rate: of the steps taken before and the share of the budget spent, 0 to 1.
            loss_at: draws the batch of a step, counted from 0 over all runs, and returns its
                loss, shape (). For a resumed run to end as an uninterrupted one does, the batch
                may depend on nothing but the step.
        """
        clock = Clock(budget_seconds, self._seconds)
        saved = shown = clock.spent()
        running = 0.0
        while clock.progress() < 1:
            loss = loss_at(self._step)
            self._descend(loss, learning_rate(self._step, clock.progress()))
            running += loss.item()
            if self._step % self._log.every == 0:
                self._print(running, clock.spent() - shown, clock)
                running, shown = 0.0, clock.spent()
            if clock.spent() - saved > SAVE_EVERY_SECONDS or clock.progress() >= 1:
                self._save(clock.spent())
                saved = clock.spent()

    def _descend(self, loss: Tensor, learning_rate: float) -> None:
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate
        self._optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, LARGEST_GRADIENT_NORM)
        self._optimiser.step()
        self._step += 1
        if self._average:
            self._average.update(self._step)

    def _print(self, running: float, seconds: float, clock: Clock) -> None:
        line = self._log.line.format(
            step=self._step,
            loss=running / self._log.every,
            pace=seconds / self._log.every,
            minutes=clock.spent() / 60,
        )
        print(line, flush=True)

    def _save(self, seconds: float) -> None:
        self._seconds = seconds
        average = {"average": self._average.values} if self._average else {}
        parts = {
            "model": self._model.state_dict(),
            **average,
            "optimiser": self._optimiser.state_dict(),
            "step": self._step,
            "seconds": seconds,
            **self._notes,
        }
        part = self._checkpoint.with_suffix(".part")
        torch.save(parts, part)
        part.replace(self._checkpoint)  # a run killed while saving keeps the checkpoint before
