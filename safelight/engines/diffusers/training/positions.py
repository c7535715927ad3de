"""Which pictures a step takes, as a function of the step alone."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from safelight.engines.diffusers.training.chance import words
from safelight.engines.diffusers.training.dataset import NOTHING, Dataset, Entry
from safelight.engines.training import TrainingOptions


@dataclass(frozen=True)
class Taken:
    """One picture as a step takes it."""

    entry: Entry
    """Which."""
    mirrored: bool
    """Whether the other way round."""
    caption: str
    """As it is read this time."""
    weight: float
    """How much its loss counts; those of a step add up to 1, and to the prior's weight."""


class Order:
    """Batches of one size each, in another order every epoch."""

    def __init__(self, dataset: Dataset, options: TrainingOptions, seed: int) -> None:
        self._dataset = dataset
        self._options = options
        self._seed = seed
        self._prior = [entry for entry in dataset.entries if entry.prior]
        self._by_size: dict[tuple[int, int], list[Entry]] = defaultdict(list)
        for entry in dataset.entries:
            if not entry.prior:
                self._by_size[entry.width, entry.height] += [entry] * entry.repeats
        size = options.train_batch_size
        self.batches_per_epoch = sum(-(-len(each) // size) for each in self._by_size.values())
        """The last batch of a size may be smaller."""
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def step(self, step: int) -> list[Taken]:
        """All pictures of a step; those with a prior besides."""
        count = self._options.gradient_accumulation_steps
        found = [self._batch(at) for at in range(step * count, (step + 1) * count)]
        chosen = [entry for batch in found for entry in batch]
        taken = [self._taken(entry, step, at, 1 / len(chosen)) for at, entry in enumerate(chosen)]
        if self._prior:
            weight = self._options.prior_loss_weight / len(chosen)
            for at in range(len(chosen)):
                draw = words(self._seed, "prior", step, at)
                entry = self._prior[draw.randrange(len(self._prior))]
                taken.append(Taken(entry, False, entry.caption, weight))
        return taken

    def _batch(self, number: int) -> Sequence[Entry]:
        epoch, place = divmod(number, self.batches_per_epoch)
        return self._epoch(epoch)[place]

    def _shuffled(self, epoch: int) -> list[list[Entry]]:
        draw = words(self._seed, "epoch", epoch)
        size = self._options.train_batch_size
        batches: list[list[Entry]] = []
        for entries in self._by_size.values():
            mixed = list(entries)
            draw.shuffle(mixed)
            batches += [mixed[at : at + size] for at in range(0, len(mixed), size)]
        draw.shuffle(batches)
        return batches

    def _taken(self, entry: Entry, step: int, at: int, weight: float) -> Taken:
        draw = words(self._seed, "taken", step, at)
        mirrored = self._dataset.mirrored and draw.random() < 0.5
        dropped = draw.random() < self._options.caption_dropout_rate
        caption = entry.caption
        if self._options.shuffle_caption:
            parts = [part.strip() for part in caption.split(",")]
            kept, rest = parts[: self._options.keep_tokens], parts[self._options.keep_tokens :]
            draw.shuffle(rest)
            caption = ", ".join([*kept, *rest])
        return Taken(entry, mirrored, NOTHING if dropped else caption, weight)
