"""The training loop keeps to its budget, logs what it says and survives a kill while saving."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from training.starter import loop
from training.starter.loop import Log, TrainingLoop

LOG = Log(2, "toy {step} loss {loss:.1f} {pace:.1f} s/step {minutes:.2f} min")


class Toy:
    """One weight that is pulled towards 0; each loss takes 15 seconds of the clock."""

    def __init__(self, file: Path, *, average: bool = False) -> None:
        self.model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(self.model.weight)
        self.optimiser = torch.optim.SGD(self.model.parameters(), 0.1)
        self.seconds = 0.0
        self.asked: list[tuple[int, float]] = []
        self.loop = TrainingLoop(
            self.model, self.optimiser, file, LOG, average=average, notes={"colour": "red"}
        )

    def loss_at(self, step: int) -> Tensor:
        self.seconds += 15
        return (self.model.weight * (1 + step)).abs().sum()

    def learning_rate(self, step: int, progress: float) -> float:
        self.asked.append((step, progress))
        return 0.1 * (1 - progress)

    def run(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 60) -> None:
        monkeypatch.setattr(loop.time, "monotonic", lambda: self.seconds)
        self.loop.run(seconds, self.learning_rate, self.loss_at)


def test_a_line_shows_means_since_the_line_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    toy = Toy(tmp_path / "toy.pt")
    toy.run(monkeypatch)
    # gradients are clipped to 1: weights 1, 0.925, 0.875, 0.85; losses are those times 1, 2, 3, 4
    assert toy.asked == [(0, 0.25), (1, 0.5), (2, 0.75), (3, 1.0)]
    assert capsys.readouterr().out.splitlines() == [
        "toy 2 loss 1.4 15.0 s/step 0.50 min",
        "toy 4 loss 3.0 15.0 s/step 1.00 min",
    ]


def test_the_checkpoint_holds_what_was_trained_and_the_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "toy.pt"
    Toy(file).run(monkeypatch)
    kept = torch.load(file)
    assert list(kept) == ["model", "optimiser", "step", "seconds", "colour"]
    assert (kept["step"], kept["seconds"], kept["colour"]) == (4, 60.0, "red")
    again = Toy(file)
    assert torch.equal(again.model.weight, kept["model"]["weight"])
    assert float(again.model.weight.detach()) == pytest.approx(0.85)


def test_the_average_follows_the_weights_over_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "toy.pt"
    monkeypatch.setattr(Toy, "learning_rate", lambda _toy, _step, _progress: 0.05)
    Toy(file, average=True).run(monkeypatch, 30)
    first = float(torch.load(file)["average"][0])
    # weights 1, 0.95, 0.90; decays 2/11 and 3/12
    mean = 1 * (2 / 11) + 0.95 * (9 / 11)
    assert first == pytest.approx(mean * 0.25 + 0.90 * 0.75)
    Toy(file, average=True).run(monkeypatch, 45)
    second = float(torch.load(file)["average"][0])
    assert second == pytest.approx(first * 4 / 13 + 0.85 * 9 / 13)


def test_a_run_killed_while_saving_keeps_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "toy.pt"
    Toy(file).run(monkeypatch, 30)
    before = file.read_bytes()

    def killed(_parts: object, part: Path) -> None:
        part.write_bytes(b"half a check")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop.torch, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            Toy(file).run(patch, 60)
    assert file.read_bytes() == before
    Toy(file).run(monkeypatch, 60)
    assert torch.load(file)["step"] == 4
    assert [entry.name for entry in tmp_path.iterdir()] == ["toy.pt"]
