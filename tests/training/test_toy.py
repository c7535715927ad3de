"""The starter model learns a toy that it has never seen, and forgets nothing."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safelight.engines.diffusers.training import trainer
from safelight.engines.training import DatasetOptions, Example, TrainingOptions, TrainRequest
from safelight.media.curves import curve
from safelight.media.sheets import contact_sheet
from safelight.weights.places import STARTER
from tests.engines.diffusers.training.small import Kept
from tests.served import CHECKOUT
from tests.training import toy
from training.starter.metric import SIZES, nearest, references, with_another
from training.starter.render import FONT
from training.starter.subjects import SUBJECTS, held_out_prompts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FONT.exists(), reason=f"{FONT} is not installed"),
    pytest.mark.skipif(not STARTER.exists(), reason="weights/starter is missing: make starter"),
]
CPU_SECONDS = 5 * 60 * 2
"""Five minutes on 2 cores."""
TOY = len(SUBJECTS)
REPORT = CHECKOUT / "docs" / "images"


def known():
    return with_another(references(), [toy.toy_reference(size) for size in SIZES])


def test_the_measure_tells_the_toy_from_all_subjects():
    told = known()
    assert nearest(toy.toy_reference(54, 2, -1), told).subject == TOY
    assert nearest(toy.toy_reference(54, 2, -1)).subject < TOY
    flat = np.full((64, 64, 3), 128, np.uint8)
    assert nearest(flat, told).subject != TOY


def test_no_prompt_is_a_caption():
    captions = {caption.format(toy.NAME) for caption in toy.CAPTIONS}
    assert len(captions) == toy.PICTURES
    assert not captions & set(toy.prompts())


@pytest.mark.soak
def test_the_starter_learns_a_toy_and_forgets_nothing(volume: Path, tmp_path: Path):
    subjects = SUBJECTS[:: len(SUBJECTS) // toy.KEPT][: toy.KEPT]
    asked = TrainRequest(
        "starter",
        DatasetOptions(class_prompts=tuple(subject.name for subject in subjects)),
        TrainingOptions(**toy.RECIPE),
        seed=1,
    )
    examples = [
        Example(pixels, caption.format(toy.NAME))
        for pixels, caption in zip(toy.toy_pictures(), toy.CAPTIONS, strict=True)
    ]
    begun = time.process_time()
    trainer.encode_dataset(asked, examples, tmp_path / "data")
    course = Kept()
    trainer.train(asked, tmp_path / "data", course, tmp_path / "trained")
    seconds = time.process_time() - begun
    asks = held_out_prompts(20, 1)
    prompts = [*toy.prompts(), *(prompt for _, prompt in asks)]
    pictures = trainer.draw_samples(asked, tmp_path / "trained", prompts)
    told = known()
    found = [nearest(picture, told).subject for picture in pictures]
    right = sum(one == TOY for one in found[:10])
    kept = sum(one == wanted for one, (wanted, _) in zip(found[10:], asks, strict=True))
    figures = {
        "cpu_seconds": round(seconds, 1),
        "steps": toy.STEPS,
        "toy_right_of_10": right,
        "known_right_of_20": kept,
        "first_loss": round(float(np.mean(course.losses[:20])), 4),
        "last_loss": round(float(np.mean(course.losses[-20:])), 4),
    }
    shown = [*zip(prompts, pictures, strict=True)]
    Image.fromarray(contact_sheet(shown, 10, 96)).save(REPORT / "training-toy.webp", quality=85)
    Image.fromarray(curve(course.losses, "loss")).save(REPORT / "training-loss.webp", quality=85)
    (REPORT / "training-toy.json").write_text(json.dumps(figures, indent=1) + "\n")
    assert right >= 8, figures
    assert kept == 20, figures
    assert seconds < CPU_SECONDS
