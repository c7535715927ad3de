"""Find the steps and guidance that suit the model, with other requests than the evaluation's."""

import json
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np

from training.starter.evaluate import SEED, draw, open_model
from training.starter.metric import nearest
from training.starter.settings import CHOSEN, Settings
from training.starter.subjects import held_out_prompts

STEPS = (8, 12, 20)
GUIDANCE = (1.5, 2.0, 3.0, 4.0, 5.0)
TUNING_SEED = SEED + 1
"""Of the requests and of the noise; the evaluation has another."""
ASKED = 60
BATCH = 10
WORTH = 0.02
"""Share of right pictures that more steps have to win, to be worth the time."""


def tuning_requests(count: int) -> list[tuple[int, str]]:
    """Choose requests that the evaluation does not make."""
    evaluated = {prompt for _, prompt in held_out_prompts(100, SEED)}
    all_requests = held_out_prompts(2 * count, TUNING_SEED)
    return [request for request in all_requests if request[1] not in evaluated][:count]


def tune(folder: Path, asked: int = ASKED, kept: Path = CHOSEN) -> Settings:
    """Draw the same requests with all settings and keep the best.

    Args:
        folder: an exported model.
        asked: requests.
        kept: JSON file to write.

    Returns:
        Of the fewest steps that lose less than `WORTH` against the best, the guidance with most
        right pictures; of several, the one nearest to the references.
    """
    pipeline = open_model(folder)
    requests = tuning_requests(asked)
    tried: list[dict[str, float]] = []
    for steps, guidance in product(STEPS, GUIDANCE):
        settings = Settings(steps, guidance)
        matches = [
            (nearest(picture), index)
            for first in range(0, len(requests), BATCH)
            for picture, (index, _) in zip(
                draw(
                    pipeline,
                    [prompt for _, prompt in requests[first : first + BATCH]],
                    settings,
                    TUNING_SEED,
                ),
                requests[first : first + BATCH],
                strict=True,
            )
        ]
        right = [match.distance for match, index in matches if match.subject == index]
        distance = float(np.mean(right)) if right else 1.0
        row = {**asdict(settings), "right": len(right), "distance": round(distance, 4)}
        tried.append(row)
        print(row, flush=True)
    chosen = best_settings(tried, asked)
    found = {"asked": asked, "seed": TUNING_SEED, "chosen": asdict(chosen), "tried": tried}
    kept.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return chosen


def best_settings(tried: list[dict[str, float]], asked: int) -> Settings:
    """Choose among what was tried.

    Args:
        tried: steps, guidance_scale, right and distance of each.
        asked: requests.
    """
    most = max(row["right"] for row in tried)
    good = [row for row in tried if row["right"] >= most - WORTH * asked]
    fewest = min(row["steps"] for row in good)
    best = min(
        (row for row in good if row["steps"] == fewest),
        key=lambda row: (-row["right"], row["distance"]),
    )
    return Settings(int(best["steps"]), best["guidance_scale"])
