"""The training itself: step by step, from where it was to its end."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from safelight.engines.diffusers.training import states
from safelight.engines.diffusers.training.chance import derived, numbers
from safelight.engines.diffusers.training.dataset import Dataset
from safelight.engines.diffusers.training.families import Diffusion, Flow, Text
from safelight.engines.diffusers.training.networks import LoraNetworks
from safelight.engines.diffusers.training.optimizing import optimizer_of, schedule_of
from safelight.engines.diffusers.training.positions import Order, Taken
from safelight.engines.machine.memory import give_back, until_it_fits
from safelight.engines.training import Course, Point, TrainingOptions
from safelight.errors import InvalidFieldValueError, OutOfMemoryError
from safelight.progress import StopRequestedError, note, step

if TYPE_CHECKING:
    import torch

Sample = Callable[[int], None]
"""Draws and shows the sample pictures of a step."""


class Loop:
    """One training.

    Args:
        family: with the pipeline.
        networks: the LoRA on it.
        dataset: what is learnt.
        options: how.
        seed: of all chance.
        course: keeps checkpoints and is told.
    """

    def __init__(
        self,
        family: Diffusion | Flow,
        networks: LoraNetworks,
        dataset: Dataset,
        options: TrainingOptions,
        seed: int,
        course: Course,
    ) -> None:
        from diffusers.training_utils import EMAModel

        self._family = family
        self._networks = networks
        self._dataset = dataset
        self._options = options
        self._seed = seed
        self._course = course
        self._order = Order(dataset, options, seed)
        self._optimizer = optimizer_of(networks.groups(), options)
        self._schedule = schedule_of(self._optimizer, options)
        self._mean = (
            EMAModel(networks.weights.values(), decay=options.ema_decay)
            if options.ema_decay is not None
            else None
        )
        self._state = states.State(at_once=2 * options.train_batch_size)
        self._losses: list[float] = []
        self._pending: list[torch.Tensor] = []

    @property
    def losses(self) -> Sequence[float]:
        """Of all steps so far."""
        self._losses += [float(loss) for loss in self._pending]
        self._pending.clear()
        return self._losses

    def run(self, sample: Sample) -> None:
        """Train to the end.

        Raises:
            StopRequestedError: the run was asked to stop; a checkpoint of where it was is kept.
            OutOfMemoryError: not even one picture fits.
            InvalidFieldValueError: the loss is no number any more.
        """
        import torch

        with torch.random.fork_rng(devices=[]):
            self._resume()
            self._run(sample)

    def averaged(self) -> AbstractContextManager[None]:
        """The weights that count as the result, inside."""
        return _Averaged(self._mean, self._networks)

    def _run(self, sample: Sample) -> None:
        steps = self._options.max_train_steps
        begun, first = time.monotonic(), self._state.step
        try:
            if first == 0:
                self._sampled(sample, 0)
            while self._state.step < steps:
                done = self._state.step
                step(done, steps)
                self._pending.append(self._step(done))
                self._state.step = done = done + 1
                if done % self._options.save_every == 0 and done < steps:
                    self._save()
                pace = (time.monotonic() - begun) / (done - first)
                self._told(pace * (steps - done))
                every = self._options.sample_every
                if every and (done % every == 0 or done == steps):
                    self._sampled(sample, done)
        except StopRequestedError:
            if self._state.step:
                self._save()
            raise
        self._save()
        step(steps, steps)

    def _told(self, seconds_left: float) -> None:
        """Asks the device for its losses now and then: each time it has to be waited for."""
        done = self._state.step
        if done % 10 and done < self._options.max_train_steps:
            return
        losses = self.losses
        if losses[-1] != losses[-1]:
            raise InvalidFieldValueError(
                f"the loss is no number any more at step {done}",
                "set a smaller learning_rate, and mixed_precision to no",
            )
        point = Point(done, self._options.max_train_steps, losses[-1], seconds_left)
        self._course.told(point, losses)

    def _sampled(self, sample: Sample, done: int) -> None:
        if not self._options.sample_every:
            return
        import torch

        with torch.random.fork_rng(devices=[]), self.averaged():
            sample(done)

    def _step(self, at: int) -> "torch.Tensor":
        taken = self._order.step(at)
        return until_it_fits(lambda: self._learn(taken, at), self._with_fewer, give_back)

    def _with_fewer(self, error: Exception) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        if self._state.at_once <= 1:
            raise OutOfMemoryError(
                "one picture does not fit into the device's memory while it is learnt",
                "set gradient_checkpointing, a smaller resolution or a smaller network_dim",
            ) from error
        self._state.at_once = -(-self._state.at_once // 2)
        note(f"out of memory: {self._state.at_once} pictures at a time from here on")

    def _learn(self, taken: Sequence[Taken], at: int) -> "torch.Tensor":
        import torch

        self._networks.training(True)
        total = torch.zeros((), device=self._family.device)
        for place, part in self._parts(taken):
            torch.manual_seed(derived(self._seed, "dropout", at, place))
            loss = self._loss(part, at)
            loss.backward()
            total += loss.detach()
        weights = list(self._networks.weights.values())
        if self._options.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(weights, self._options.max_grad_norm)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._options.scale_weight_norms is not None:
            self._networks.limit(self._options.scale_weight_norms)
        if self._mean is not None:
            self._mean.step(weights)
        return total

    def _parts(self, taken: Sequence[Taken]) -> Iterator[tuple[int, list[tuple[int, Taken]]]]:
        """What goes through the network together: of one size, as many as fit."""
        by_size: dict[tuple[int, int], list[tuple[int, Taken]]] = defaultdict(list)
        for at, one in enumerate(taken):
            by_size[one.entry.width, one.entry.height].append((at, one))
        for several in by_size.values():
            for begin in range(0, len(several), self._state.at_once):
                part = several[begin : begin + self._state.at_once]
                yield part[0][0], part

    def _loss(self, part: Sequence[tuple[int, Taken]], at: int) -> "torch.Tensor":
        import torch

        device = self._family.device
        latents = torch.stack(
            [self._dataset.latents[one.entry.index, one.mirrored] for _, one in part]
        )
        noise = torch.empty_like(latents)
        moments = torch.empty(len(part))
        for row, (place, _) in enumerate(part):
            draw = numbers(self._seed, "noise", at, place)
            noise[row] = torch.randn(latents.shape[1:], generator=draw)
            normal = self._family.moments_are_normal
            moments[row] = (torch.randn if normal else torch.rand)((), generator=draw)
            if self._options.noise_offset:
                moved = torch.randn((latents.shape[1], 1, 1), generator=draw)
                noise[row] += self._options.noise_offset * moved
        weights = torch.tensor([one.weight for _, one in part], device=device)
        with self._precision():
            text = self._text([one.caption for _, one in part])
            said, wanted, snr = self._family.loss(
                latents.to(device), noise.to(device), moments.to(device), text
            )
        errors = self._errors(said.float(), wanted.float())
        if snr is not None and self._options.min_snr_gamma is not None:
            errors = errors * self._snr_weights(snr.float(), self._options.min_snr_gamma)
        return (errors * weights).sum()

    def _errors(self, said: "torch.Tensor", wanted: "torch.Tensor") -> "torch.Tensor":
        from torch.nn import functional

        if self._options.loss_type == "huber":
            each = functional.huber_loss(
                said, wanted, reduction="none", delta=self._options.huber_c
            )
        else:
            each = functional.mse_loss(said, wanted, reduction="none")
        return each.flatten(1).mean(1)

    def _snr_weights(self, snr: "torch.Tensor", gamma: float) -> "torch.Tensor":
        """Hang et al. 2023, arXiv:2303.09556; what predicts velocity is divided by SNR + 1."""
        predicts = getattr(self._family, "predicts", "epsilon")
        least = snr.clamp(max=gamma)
        if predicts == "v_prediction":
            return least / (snr + 1)
        return least / snr.clamp(min=1e-8) if predicts == "epsilon" else least

    def _precision(self) -> AbstractContextManager[object]:
        import torch

        if self._options.mixed_precision == "no":
            return nullcontext()
        return torch.autocast(self._family.device.type, torch.bfloat16)

    def _text(self, captions: Sequence[str]) -> Text:
        import torch

        device = self._family.device
        if self._dataset.texts:
            rows = [self._dataset.texts[caption] for caption in captions]
            return {name: torch.stack([r[name] for r in rows]).to(device) for name in rows[0]}
        with torch.set_grad_enabled(self._options.text_encoder_lr is not None):
            return self._family.encode_text(captions)

    def _save(self) -> None:
        self._state.losses = list(self.losses)
        parts: dict[str, object] = {
            "weights": dict(self._networks.weights),
            "optimizer": self._optimizer.state_dict(),
            "schedule": _plain(self._schedule.state_dict()),
        }
        if self._mean is not None:
            parts["mean"] = self._mean.state_dict()
        self._course.write(states.name_of(self._state.step), states.packed(self._state, parts))
        for name in self._course.checkpoints()[self._options.keep_last :]:
            self._course.drop(name)

    def _resume(self) -> None:
        found = states.latest(self._course)
        if found is None:
            return
        self._state, parts = found
        self._losses = list(self._state.losses)
        self._networks.load(parts["weights"])
        self._optimizer.load_state_dict(parts["optimizer"])
        functions = self._schedule.state_dict()["lr_lambdas"]
        self._schedule.load_state_dict({**parts["schedule"], "lr_lambdas": functions})
        if self._mean is not None:
            self._mean.load_state_dict(parts["mean"])
            self._mean.to(self._family.device)
        if self._state.step < self._options.max_train_steps:
            note(f"went on from the checkpoint of step {self._state.step}")


class _Averaged:
    def __init__(self, mean: Any, networks: LoraNetworks) -> None:  # noqa: ANN401
        self._mean = mean
        self._networks = networks

    def __enter__(self) -> None:
        self._networks.training(False)
        if self._mean is not None:
            self._mean.store(self._networks.weights.values())
            self._mean.copy_to(self._networks.weights.values())

    def __exit__(self, *_: object) -> None:
        if self._mean is not None:
            self._mean.restore(self._networks.weights.values())


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Without functions, which the schedule is made of again."""
    return {name: value for name, value in state.items() if name != "lr_lambdas"}
