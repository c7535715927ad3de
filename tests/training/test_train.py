"""Training continues where it was stopped, and ends up where an uninterrupted one does."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from training.starter import loop, networks, train
from training.starter.render import SIDE
from training.starter.subjects import SUBJECTS
from training.starter.vocabulary import write_tokenizer

STEPS = 4
"""Of a whole run, each of a minute."""
FEW = SUBJECTS[:16]


class StoppedError(Exception):
    """Stands for a run that is killed."""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a random picture of each of a few subjects; networks are narrow."""
    monkeypatch.setattr(train, "WORK", tmp_path)
    monkeypatch.setattr(train, "VARIANTS", 1)
    monkeypatch.setattr(train, "SUBJECTS", FEW)
    monkeypatch.setattr(networks, "AUTOENCODER_CHANNELS", (16, 16, 16))
    monkeypatch.setattr(networks, "DENOISER_CHANNELS", (16, 32, 32))
    draw = np.random.default_rng(0)
    shape = (SIDE, SIDE, 4)
    np.savez(
        tmp_path / "pictures.npz",
        subjects=draw.integers(0, 256, (len(FEW), 1, *shape)).astype(np.uint8),
        others=draw.integers(0, 256, (8, *shape)).astype(np.uint8),
    )
    return tmp_path


@pytest.fixture
def minutes(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """A clock on which each step takes a minute; the returned function sets where a run dies."""
    state: dict[str, int | None] = {"steps": 0, "last": None}
    clip = torch.nn.utils.clip_grad_norm_

    def tick(*arguments: object) -> object:
        if state["steps"] == state["last"]:
            raise StoppedError
        state["steps"] = (state["steps"] or 0) + 1
        return clip(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", tick)
    monkeypatch.setattr(loop.time, "monotonic", lambda: 60.0 * (state["steps"] or 0))
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", 90.0)

    def die_after(steps: int | None) -> None:
        state["last"] = None if steps is None else (state["steps"] or 0) + steps

    return die_after


def same(first: object, second: object) -> bool:
    """Whether two checkpoints hold the same values, bit by bit."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def untrained_text(work: Path) -> None:
    model = networks.new_text_encoder(write_tokenizer(work / "tokenizer"))
    torch.save({"model": model.state_dict()}, work / "text.pt")


@pytest.mark.slow
@pytest.mark.parametrize("part", ["autoencoder", "text", "denoiser"])
def test_a_stopped_run_continues_to_the_same_end(
    work: Path, minutes: Callable[[int | None], None], part: str
):
    file = work / f"{part}.pt"
    if part == "denoiser":
        torch.manual_seed(0)
        torch.save({"model": networks.new_autoencoder().state_dict()}, work / "autoencoder.pt")
        untrained_text(work)

    def run() -> None:
        torch.manual_seed(train.SEED)
        if part == "autoencoder":
            train.train_autoencoder(STEPS, batch=2)
        elif part == "text":
            train.train_text_encoder(STEPS, batch=2)
        else:
            train.train_denoiser(STEPS, batch=2)

    run()
    whole = torch.load(file)
    file.unlink()
    minutes(3)
    with pytest.raises(StoppedError):
        run()
    assert torch.load(file)["step"] == 2  # the third was not saved and is done again
    minutes(None)
    run()
    continued = torch.load(file)
    assert continued["step"] == whole["step"] == STEPS
    assert same(continued, whole)
    changed = {**whole, "model": {k: v + 1 for k, v in whole["model"].items()}}
    assert not same(changed, whole)


def test_a_finished_part_is_not_trained_again(work: Path, minutes: Callable[[int | None], None]):
    torch.manual_seed(train.SEED)
    train.train_autoencoder(1, batch=2)
    before = (work / "autoencoder.pt").read_bytes()
    minutes(0)
    train.train_autoencoder(1, batch=2)
    assert (work / "autoencoder.pt").read_bytes() == before


def test_the_averaged_weights_are_read_back(work: Path):
    untrained_text(work)
    model = networks.new_denoiser()
    average = [torch.full_like(p, 0.25) for p in model.parameters()]
    torch.save({"average": average, "step": 7}, work / "denoiser.pt")
    model, _, _, step = train.load_denoiser()
    assert step == 7
    assert all(bool((p == 0.25).all()) for p in model.parameters())


@pytest.mark.soak
@pytest.mark.usefixtures("minutes")  # a step a minute
def test_the_text_encoder_learns_to_tell_subjects_apart(work: Path):
    torch.manual_seed(train.SEED)
    tokenizer = write_tokenizer(work / "tokenizer")
    codes = train.subject_codes()
    untrained_text(work)

    def nearest() -> list[int]:
        tokens = train.tokenize(tokenizer, [subject.name for subject in FEW])
        states = train.load_text_encoder(tokenizer)(tokens).last_hidden_state[:, -1]
        return torch.cdist(states, codes[: len(FEW)]).argmin(1).tolist()

    assert nearest() != list(range(len(FEW)))
    (work / "text.pt").unlink()
    train.train_text_encoder(150, batch=16)
    assert nearest() == list(range(len(FEW)))


def test_most_timesteps_are_those_that_the_prompt_decides():
    moments = train.training_moments(400, torch.Generator().manual_seed(0))
    assert moments.min() >= 0
    assert 990 < moments.max() <= 999
    assert 0.7 < float((moments >= 500).float().mean()) < 0.8


def test_latents_have_unit_variance(work: Path):
    torch.manual_seed(0)
    torch.save({"model": networks.new_autoencoder().state_dict()}, work / "autoencoder.pt")
    latents = train.training_latents(train.load_autoencoder())
    assert latents.shape == (len(FEW), 1, 4, 16, 16)
    assert float(latents.std()) == pytest.approx(1, abs=0.01)


def test_pictures_lie_on_the_colour_asked_for():
    rgba = torch.zeros(2, SIDE, SIDE, 4, dtype=torch.uint8)
    rgba[0, ..., 0] = rgba[0, ..., 3] = 255
    laid = train.compose(rgba, torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.5, 0.0]]))
    assert laid[0, :, 0, 0].tolist() == [1, -1, -1]
    assert laid[1, :, 0, 0].tolist() == [1, 0, -1]


def test_the_learning_rate_is_level_then_falls():
    shares = [train.learning_rate_share(place / 10) for place in range(11)]
    assert shares[:4] == [1.0] * 4
    assert shares[4:] == sorted(shares[4:], reverse=True)
    assert shares[-1] == pytest.approx(0.02)
