"""Run all of the starter model's making, or one part: each continues where it was left."""

import argparse
import os
from collections.abc import Callable

import torch

from safelight.weights.places import STARTER
from training.starter.render import FONT
from training.starter.train import (
    SEED,
    WORK,
    pictures,
    train_autoencoder,
    train_denoiser,
    train_text_encoder,
)

MINUTES = 115.0
"""Of training, on one core; a machine with more needs less."""
AUTOENCODER_SHARE = 20 / 115
"""Of those minutes; it is good enough long before the denoiser is."""
TEXT_SHARE = 3 / 115
"""Of those minutes; prompts are told apart soon."""


def make_pictures(minutes: float) -> None:
    """Draw the training pictures."""
    del minutes
    subjects, others = pictures()
    print(f"pictures: {subjects.shape[0]} subjects, {len(others)} others")


def make_autoencoder(minutes: float) -> None:
    """Train the autoencoder; not any more once a denoiser was trained on its latents."""
    if (WORK / "denoiser.pt").exists():
        print("autoencoder: kept, the denoiser was trained on its latents")
        return
    train_autoencoder(minutes * AUTOENCODER_SHARE)


def make_text_encoder(minutes: float) -> None:
    """Train the text encoder; not any more once a denoiser was trained on its states."""
    if (WORK / "denoiser.pt").exists():
        print("text encoder: kept, the denoiser was trained on its states")
        return
    train_text_encoder(minutes * TEXT_SHARE)


def make_denoiser(minutes: float) -> None:
    """Train the denoiser."""
    train_denoiser(minutes * (1 - AUTOENCODER_SHARE - TEXT_SHARE))


def make_settings(minutes: float) -> None:
    """Choose the recommended steps and guidance."""
    del minutes
    from training.starter.export import export, trained_parts
    from training.starter.tune import tune

    print("chosen:", tune(export(trained_parts(), WORK / "tuning")))


def make_export(minutes: float) -> None:
    """Write the model to weights/starter."""
    del minutes
    from training.starter.export import export, trained_parts

    print("written:", export(trained_parts()))


def make_report(minutes: float) -> None:
    """Evaluate what was written, and put the figures into its model card."""
    del minutes
    from training.starter.evaluate import evaluate
    from training.starter.export import write_model_card

    found = evaluate()
    write_model_card(STARTER)
    print({name: value for name, value in found.items() if name != "answers"})


PARTS: dict[str, Callable[[float], None]] = {
    "pictures": make_pictures,
    "autoencoder": make_autoencoder,
    "text": make_text_encoder,
    "denoiser": make_denoiser,
    "tune": make_settings,
    "export": make_export,
    "evaluate": make_report,
}
"""In the order in which they build on each other."""


def main() -> None:
    """Read the command line and make one part, or all."""
    parser = argparse.ArgumentParser(prog="python -m training.starter", description=__doc__)
    parser.add_argument("part", nargs="?", choices=list(PARTS), help="one part; without it, all")
    parser.add_argument(
        "--minutes",
        type=float,
        default=MINUTES,
        help="of training in all, earlier runs included (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if not FONT.exists():
        parser.error(f"{FONT} is not there; run: apt-get install fonts-noto-color-emoji")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(SEED)
    for name in [arguments.part] if arguments.part else PARTS:
        PARTS[name](arguments.minutes)


if __name__ == "__main__":
    main()
