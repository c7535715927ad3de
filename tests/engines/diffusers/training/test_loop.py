"""A training goes on where it was, and ends where it would have ended."""

from pathlib import Path

import pytest
import torch

from safelight.engines.diffusers.training import loop as loops
from safelight.engines.diffusers.training import trainer
from safelight.engines.diffusers.training.dataset import Dataset, Entry
from safelight.engines.diffusers.training.positions import Order
from safelight.engines.diffusers.training.states import name_of
from safelight.engines.training import DatasetOptions, TrainingOptions
from safelight.errors import PipelineError
from safelight.progress import StopReason, StopRequestedError, clear_stop, request_stop
from tests.engines.diffusers.training.small import SMALL, Kept, request, trained

RICH = {
    "max_train_steps": 5,
    "train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "network_dropout": 0.3,
    "text_encoder_lr": 0.01,
    "shuffle_caption": True,
    "keep_tokens": 1,
    "caption_dropout_rate": 0.3,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 2,
    "noise_offset": 0.1,
    "min_snr_gamma": 5,
    "ema_decay": 0.9,
    "scale_weight_norms": 1,
    "loss_type": "huber",
    "network_targets": "all",
}
"""All that draws by chance or has a state."""


class Killed(BaseException):
    """As SIGKILL: nothing is kept behind it."""


class Dies(Kept):
    """Is killed when it is told of a step."""

    def write(self, name: str, content: bytes) -> None:
        super().write(name, content)
        if name == self.last:
            raise Killed

    last = ""


@pytest.mark.slow
@pytest.mark.usefixtures("models")
def test_what_was_killed_ends_with_the_same_bytes(tmp_path: Path):
    asked = request(
        DatasetOptions(**SMALL.model_dump(exclude_unset=True), flip_aug=True, class_prompts=("a",)),
        save_every=2,
        keep_last=1,
        sample_every=3,
        **RICH,
    )
    whole = trained(asked, tmp_path / "w")
    (tmp_path / "w" / "trained").unlink()
    course = Dies()
    course.last = name_of(4)
    with pytest.raises(Killed):
        trained(asked, tmp_path / "w", course)
    assert course.checkpoints() == [name_of(4), name_of(2)]  # killed before it dropped one
    course.last = ""
    torch.manual_seed(99)  # what other work leaves behind counts for nothing
    assert trained(asked, tmp_path / "w", course) == whole
    assert course.checkpoints() == [name_of(5)]
    one = {**RICH, "max_train_steps": 1, "lr_warmup_steps": 0}
    slow, fast = (
        trained(request(asked.dataset, **one, learning_rate=rate), tmp_path / "w")
        for rate in (0.01, 0.02)
    )
    assert slow != fast  # the bytes are those of what was learnt


@pytest.mark.usefixtures("models")
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path):
    asked = request(max_train_steps=3, save_every=1)
    course = Kept()
    whole = trained(asked, tmp_path / "a", course)
    course.files[name_of(3)] = course.files[name_of(3)][:-1] + b"?"
    assert trained(asked, tmp_path / "a", course) == whole
    assert course.written[-1] == name_of(3)


@pytest.mark.usefixtures("models")
def test_a_cancelled_training_keeps_where_it_was(tmp_path: Path):
    asked = request(max_train_steps=5, sample_every=3)
    whole = trained(asked, tmp_path / "a")

    class Stops(Kept):
        def sampled(self, step, prompts, pictures):
            super().sampled(step, prompts, pictures)
            if step == 3:
                request_stop(StopReason.CANCEL)

    course = Stops()
    try:
        with pytest.raises(StopRequestedError):
            trained(asked, tmp_path / "a", course)
    finally:
        clear_stop()
    assert course.checkpoints() == [name_of(3)]
    course.sampled = lambda *_: None
    assert trained(asked, tmp_path / "a", course) == whole


@pytest.mark.usefixtures("models")
def test_fewer_pictures_at_once_where_memory_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = request(max_train_steps=2, train_batch_size=3, caption_dropout_rate=0)
    trained(asked, tmp_path / "a")
    least = 1
    seen: list[int] = []
    learns = loops.Loop._loss

    def loss(self, part, at):
        if len(part) > least:
            raise torch.OutOfMemoryError("out of memory")
        seen.append(len(part))
        return learns(self, part, at)

    monkeypatch.setattr(loops.Loop, "_loss", loss)
    course = Kept()
    trained(asked, tmp_path / "a", course)
    assert set(seen) == {1}
    least = 0
    with pytest.raises(PipelineError) as refused:
        trained(asked, tmp_path / "a")
    assert refused.value.code == "OUT_OF_MEMORY"


@pytest.mark.usefixtures("models")
def test_a_step_of_parts_is_the_step_as_a_whole(tmp_path: Path):
    """The gradient is the same sum, up to the last bits, however many go through together."""
    asked = request(max_train_steps=1, train_batch_size=3, optimizer="AdamW")
    course = Kept()
    trained(asked, tmp_path / "a", course)
    at_once = course.losses[0]
    halves = request(max_train_steps=1, gradient_accumulation_steps=3)
    course = Kept()
    trained(halves, tmp_path / "b", course)
    assert course.losses[0] == pytest.approx(at_once, abs=0.5)


@pytest.mark.slow
@pytest.mark.usefixtures("models")
def test_it_learns(tmp_path: Path):
    """One picture without captions, learnt by heart: the loss falls."""
    asked = request(
        max_train_steps=40,
        learning_rate=0.02,
        network_dim=8,
        network_targets="all",
        caption_dropout_rate=0,
        train_batch_size=4,
    )
    course = Kept()
    trained(asked, tmp_path / "a", course, count=1)
    first, last = sum(course.losses[:12]), sum(course.losses[-12:])
    assert last < 0.97 * first


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"optimizer": "AdamW8bit"}, "INVALID_FIELD_VALUE"),
        ({"mixed_precision": "bf16"}, "INVALID_FIELD_VALUE"),
        ({"optimizer": "Prodigy"}, "DEPENDENCY_MISSING"),
        ({"network_weights": "nobody"}, "DEPENDENCY_MISSING"),
    ],
)
def test_what_this_machine_cannot_do_is_refused_before_it_loads(options: dict, code: str):
    with pytest.raises(PipelineError) as refused:
        trainer.identity(request(**options))
    assert refused.value.code == code


@pytest.mark.parametrize(
    "options",
    [
        {"cache_text_encoder_outputs": True, "text_encoder_lr": 1e-5},
        {"cache_text_encoder_outputs": True, "shuffle_caption": True},
        {"keep_tokens": 1},
        {"lr_scheduler_num_cycles": 2},
        {"lr_warmup_steps": 10, "max_train_steps": 10},
        {"huber_c": 0.2},
    ],
)
def test_options_that_make_no_sense_together_are_refused(options: dict):
    with pytest.raises(ValueError, match=r"and|the learning rate"):
        TrainingOptions(**options)


def test_an_epoch_takes_every_picture_as_often_as_it_repeats():
    entries = tuple(Entry(at, f"{at}", 1 + at, 32, 32 + 8 * (at % 2), False) for at in range(4))
    order = Order(
        Dataset(entries, {}, {}, mirrored=False),
        TrainingOptions(train_batch_size=3, caption_dropout_rate=0),
        seed=1,
    )
    assert order.batches_per_epoch == 4  # 1 + 3 of one size, 2 + 4 of the other
    epochs = [
        [one.entry.index for step in range(first, first + 4) for one in order.step(step)]
        for first in (0, 4)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == [0, 1, 1, 2, 2, 2, 3, 3, 3, 3]
    assert epochs[0] != epochs[1]
    for step in range(8):
        assert len({one.entry.height for one in order.step(step)}) == 1
