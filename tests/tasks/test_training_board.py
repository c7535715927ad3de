"""What a training says of itself while it goes on."""

from contextlib import suppress

from safelight.engines.training import Point
from safelight.store.store import current_store
from tasks.base.recorder import recording
from tasks.training.board import TrainingBoard, told_of


def test_loss_and_time_left_stand_in_the_progress_of_its_run(volume):
    with recording(lambda *_: None) as facts:
        with TrainingBoard(current_store(), "train-x", "0" * 64) as board:
            board.told(Point(10, 100, 0.5, 75.4), [0.5] * 10)
            assert facts.remark == "loss 0.5000, 1 min 15 s left"
        assert facts.remark == ""  # the next stage has none


def test_times_are_told_as_people_say_them():
    told = [told_of(Point(1, 9, 0.5, left), [0.5]) for left in (3.2, 90, 7300, None)]
    assert [text.strip("`").partition("loss 0.5000")[2] for text in told] == [
        ", 3 s left",
        ", 1 min 30 s left",
        ", 2 h 1 min left",
        "",
    ]


def test_what_has_ended_needs_no_checkpoints_and_what_failed_keeps_them(volume):
    kept: list[int] = []
    for fails in (True, False):
        with suppress(RuntimeError), TrainingBoard(current_store(), "train-x", "0" * 64) as board:
            board.write("step-0000001.safetensors", b"x")
            if fails:
                raise RuntimeError
        kept.append(len(current_store().backend.list("cache/training/")))
    assert kept == [2, 0]
