"""Ask the exported model for its subjects in new words, and see what it draws."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from numpy.typing import NDArray
from PIL import Image
from transformers.utils import logging as transformers_logging

from safelight.media.sheets import contact_sheet
from safelight.weights.places import FACTS, STARTER
from training.starter.card import REPORT
from training.starter.metric import Match, nearest
from training.starter.render import SIDE
from training.starter.settings import Settings
from training.starter.subjects import SUBJECTS, held_out_prompts

Pixels = NDArray[np.uint8]
IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
"""Where sheets are kept."""
SEED = 0
"""Of the requests and of the noise."""
ASKED = 100
"""Requests of the whole evaluation."""
TEN = (
    "red heart",
    "blue heart",
    "cat",
    "dog",
    "pizza",
    "rocket",
    "sunflower",
    "house",
    "car",
    "fish",
)
"""What a person looks at one by one."""
ENLARGED = 2
"""Sheets show each pixel as a square of so many."""


@dataclass(frozen=True)
class Answer:
    """One request and what came of it."""

    prompt: str
    asked: str
    """Name of the subject."""
    found: str
    """Name of the subject whose reference is nearest to the picture."""
    distance: float
    """To that reference; 1 is the mean distance between two subjects."""
    margin: float
    """How much farther the next subject is."""

    @property
    def right(self) -> bool:
        """Whether the picture is of the subject asked for."""
        return self.asked == self.found


def open_model(folder: Path = STARTER) -> StableDiffusionPipeline:
    """Load an exported model as anybody would, in float32 on the CPU."""
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def recommended(folder: Path = STARTER) -> Settings:
    """Read the recommended steps and guidance of an exported model."""
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    return Settings(facts["recommended_steps"], facts["recommended_guidance_scale"])


def draw(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    settings: Settings,
    seed: int = SEED,
) -> list[Pixels]:
    """Draw several requests at once, each with the same seed.

    Returns:
        (SIDE, SIDE, 3) uint8 sRGB each.
    """
    result = pipeline(
        list(prompts),
        width=SIDE,
        height=SIDE,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        generator=[torch.Generator("cpu").manual_seed(seed) for _ in prompts],
    )
    return [np.asarray(image) for image in result.images]  # pyright: ignore[reportAttributeAccessIssue]


def answer(index: int, prompt: str, match: Match) -> Answer:
    """Put a request and its picture's match together."""
    return Answer(
        prompt,
        SUBJECTS[index].name,
        SUBJECTS[match.subject].name,
        round(match.distance, 4),
        round(match.margin, 4),
    )


def ask(
    pipeline: StableDiffusionPipeline,
    requests: Sequence[tuple[int, str]],
    settings: Settings,
    seed: int = SEED,
) -> list[tuple[Answer, Pixels]]:
    """Draw requests one by one and match each picture.

    Args:
        pipeline: the model.
        requests: index of the subject, and the prompt.
        settings: steps and guidance.
        seed: of the noise, the same for all.
    """
    answers: list[tuple[Answer, Pixels]] = []
    for index, prompt in requests:
        picture = draw(pipeline, [prompt], settings, seed)[0]
        answers.append((answer(index, prompt, nearest(picture)), picture))
    return answers


def the_ten() -> list[tuple[int, str]]:
    """Find the subjects of `TEN`."""
    owner = {name: index for index, subject in enumerate(SUBJECTS) for name in subject.names}
    return [(owner[name], name) for name in TEN]


def sheet(answers: Sequence[tuple[Answer, Pixels]], columns: int) -> Pixels:
    """Lay answers out, each with what was asked and what was found below."""
    cells = [
        (
            f"asked {one.asked}, found {one.found}",
            picture.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1),
        )
        for one, picture in answers
    ]
    return contact_sheet(cells, columns, SIDE * ENLARGED)


def evaluate(
    folder: Path = STARTER, report: Path = REPORT, images: Path = IMAGES, asked: int = ASKED
) -> dict[str, object]:
    """Run the whole evaluation; writes the report and two sheets.

    Args:
        folder: an exported model.
        report: JSON file to write.
        images: folder for the sheets.
        asked: requests, at most as many as there are subjects.

    Returns:
        What the report holds.
    """
    begun = time.perf_counter()
    pipeline = open_model(folder)
    load_seconds = time.perf_counter() - begun
    settings = recommended(folder)
    draw(pipeline, ["warm up"], settings)
    begun = time.perf_counter()
    for prompt in TEN:
        draw(pipeline, [prompt], settings)
    seconds = (time.perf_counter() - begun) / len(TEN)
    hundred = ask(pipeline, held_out_prompts(asked, SEED), settings)
    ten = ask(pipeline, the_ten(), settings)
    images.mkdir(parents=True, exist_ok=True)
    for name, answers, columns in (("starter-hundred", hundred, 10), ("starter-ten", ten, 5)):
        picture = Image.fromarray(sheet(answers, columns))
        picture.save(images / f"{name}.webp", quality=90, method=6)
    found: dict[str, object] = {
        "asked": len(hundred),
        "right": sum(one.right for one, _ in hundred),
        "ten_right": sum(one.right for one, _ in ten),
        "seed": SEED,
        **asdict(settings),
        "seconds_a_picture": round(seconds, 3),
        "load_seconds": round(load_seconds, 3),
        "threads": torch.get_num_threads(),
        **_sameness(pipeline, settings),
        "answers": [asdict(one) for one, _ in [*hundred, *ten]],
    }
    report.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return found


def _sameness(pipeline: StableDiffusionPipeline, settings: Settings) -> dict[str, bool]:
    """Whether the same request gives the same bytes, and another seed or prompt others."""
    first, again = (_digest(draw(pipeline, ["a cat"], settings, 0)[0]) for _ in range(2))
    seeds = {_digest(draw(pipeline, ["a cat"], settings, seed)[0]) for seed in range(4)}
    prompts = {_digest(draw(pipeline, [prompt], settings, 0)[0]) for prompt in TEN}
    return {
        "same_seed_same_bytes": first == again,
        "seeds_differ": len(seeds) == 4,
        "prompts_differ": len(prompts) == len(TEN),
    }


def _digest(picture: Pixels) -> str:
    return hashlib.sha256(picture.tobytes()).hexdigest()
