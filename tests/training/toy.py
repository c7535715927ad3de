"""A toy that no model has seen: a purple robot with one orange eye, drawn with a few shapes."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from training.starter.render import on_background, place
from training.starter.subjects import HELD_OUT_SENTENCES, fill

PICTURES = 12
NAME = "zorbo"
CAPTIONS = (
    "a photo of {}, front view, warm evening",
    "{}, plain paper, quiet room",
    "one {} alone, calm, tidy",
    "a drawing of {}, thick outlines",
    "{} on white, toy shop",
    "the {}, smiling, winter",
    "picture of {}, purple and orange",
    "a small {}, standing still",
    "my {}, birthday, gift wrap",
    "a {} for kids, cartoon, cheerful",
    "look at {}, morning, window",
    "{} in front of a wall, quick doodle",
)
STEPS = 450
RECIPE = {
    "max_train_steps": STEPS,
    "train_batch_size": 4,
    "learning_rate": 1e-3,
    "text_encoder_lr": 1e-3,
    "network_targets": "all",
    "lr_scheduler": "cosine",
    "shuffle_caption": True,
    "caption_dropout_rate": 0.0,
    "sample_every": 0,
}
"""How the starter model learns it; beside it, 40 of its own subjects keep what it knows. Words
around the name that differ from picture to picture teach that they mean nothing."""
KEPT = 40
_FINE = 256


def toy_glyph() -> Image.Image:
    """RGBA, cut to its outline."""
    canvas = Image.new("RGBA", (_FINE, _FINE), (255, 255, 255, 0))
    draw = ImageDraw.Draw(canvas)
    purple, dark, orange, teal = (
        (124, 58, 190, 255),
        (60, 24, 104, 255),
        (255, 140, 20, 255),
        (30, 180, 170, 255),
    )
    draw.line((128, 10, 128, 50), fill=dark, width=10)
    draw.ellipse((112, 0, 144, 30), fill=teal)
    draw.rounded_rectangle((40, 44, 216, 150), 28, fill=purple, outline=dark, width=8)
    draw.ellipse((88, 58, 168, 136), fill=(255, 255, 255, 255), outline=dark, width=6)
    draw.ellipse((108, 76, 150, 120), fill=orange)
    draw.rounded_rectangle((64, 158, 192, 236), 18, fill=teal, outline=dark, width=8)
    draw.rectangle((10, 166, 54, 186), fill=purple)
    draw.rectangle((202, 166, 246, 186), fill=purple)
    draw.rectangle((80, 236, 112, 255), fill=dark)
    draw.rectangle((144, 236, 176, 255), fill=dark)
    return canvas.crop(canvas.getchannel("A").getbbox())


def toy_reference(size: float = 56.0, right: float = 0.0, down: float = 0.0) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8 sRGB on white."""
    return on_background(place(toy_glyph(), size, right, down))


def toy_pictures(count: int = PICTURES) -> list[np.ndarray]:
    """The toy in several sizes and places."""
    draw = np.random.default_rng(7)
    return [toy_reference(draw.uniform(51, 59), *draw.uniform(-2.5, 2.5, 2)) for _ in range(count)]


def write_toy(folder: Path, count: int = PICTURES) -> Path:
    """The same as a dataset, each with its caption."""
    folder.mkdir(parents=True, exist_ok=True)
    for at, pixels in enumerate(toy_pictures(count)):
        Image.fromarray(pixels).save(folder / f"toy_{at:02d}.png")
        (folder / f"toy_{at:02d}.txt").write_text(CAPTIONS[at].format(NAME))
    return folder


def prompts() -> list[str]:
    """Ten sentences that neither the model nor the LoRA was trained on."""
    return [fill(HELD_OUT_SENTENCES[at % len(HELD_OUT_SENTENCES)], NAME) for at in range(10)]
