"""Draw the subjects (and every other emoji) with Noto Color Emoji and keep them as arrays."""

from pathlib import Path

import emoji
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.starter.subjects import SUBJECTS

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
"""Where Debian's fonts-noto-color-emoji puts it (SIL Open Font License 1.1)."""
FONT_SIZE = 109
"""The only size of its bitmaps, px; Pillow refuses others."""
SIDE = 64
"""Side of every picture, px: the model's native size."""


def draw_glyph(glyph: str) -> Image.Image | None:
    """Draw one emoji, cut to its outline.

    Returns:
        RGBA, at most 136 px a side; none when the font lacks it.
    """
    font = ImageFont.truetype(str(FONT), FONT_SIZE)
    canvas = Image.new("RGBA", (300, 160), (255, 255, 255, 0))
    ImageDraw.Draw(canvas).text((4, 4), glyph, font=font, embedded_color=True)
    box = canvas.getchannel("A").getbbox()
    if box is None or box[2] - box[0] > 150:  # empty, or two glyphs instead of one
        return None
    return canvas.crop(box)


def place(
    glyph: Image.Image, largest: float, right: float = 0.0, down: float = 0.0
) -> NDArray[np.uint8]:
    """Put a cut-out glyph on a transparent square.

    Args:
        glyph: RGBA.
        largest: its longer side on the square, px.
        right: shift from the middle, px.
        down: shift from the middle, px.

    Returns:
        Shape (SIDE, SIDE, 4) uint8 RGBA.
    """
    scale = largest / max(glyph.size)
    width, height = glyph.size
    left = (SIDE - width * scale) / 2 + right
    top = (SIDE - height * scale) / 2 + down
    # One resampling at four times the size, then a box filter: no aliasing at any shift.
    fine = 4
    inverse = (1 / (scale * fine), 0, -left / scale, 0, 1 / (scale * fine), -top / scale)
    white = Image.new("RGBA", glyph.size, (255, 255, 255, 0))
    white.alpha_composite(glyph)
    drawn = white.convert("RGBa").transform(
        (SIDE * fine, SIDE * fine), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR
    )
    return np.asarray(drawn.resize((SIDE, SIDE), Image.Resampling.BOX).convert("RGBA"))


def on_background(
    rgba: NDArray[np.uint8], colour: tuple[int, int, int] = (255, 255, 255)
) -> NDArray[np.uint8]:
    """Lay RGBA pictures on a plain colour.

    Args:
        rgba: shape (..., SIDE, SIDE, 4) uint8.
        colour: sRGB, 0 to 255.

    Returns:
        Shape (..., SIDE, SIDE, 3) uint8.
    """
    alpha = rgba[..., 3:].astype(np.float32) / 255
    mixed = rgba[..., :3] * alpha + np.array(colour, np.float32) * (1 - alpha)
    return np.rint(mixed).astype(np.uint8)


def reference_pictures() -> NDArray[np.uint8]:
    """Draw every subject once, in the middle.

    Returns:
        Shape (len(SUBJECTS), SIDE, SIDE, 3) uint8 sRGB on white.
    """
    return np.stack([on_background(place(subject_glyph(i), 56)) for i in range(len(SUBJECTS))])


def subject_glyph(index: int) -> Image.Image:
    """Draw the glyph of one subject.

    Raises:
        ValueError: this version of the font has no such glyph.
    """
    drawn = draw_glyph(SUBJECTS[index].glyph)
    if drawn is None:
        raise ValueError(f"{FONT} has no picture for {SUBJECTS[index].name}; take version 2.042")
    return drawn


def training_pictures(variants: int, seed: int = 0) -> NDArray[np.uint8]:
    """Draw every subject several times, a little larger or smaller and off the middle.

    Args:
        variants: pictures a subject; the first is the reference.
        seed: of the shifts and sizes.

    Returns:
        Shape (len(SUBJECTS), variants, SIDE, SIDE, 4) uint8 RGBA.
    """
    draw = np.random.default_rng(seed)
    rows: list[NDArray[np.uint8]] = []
    for index in range(len(SUBJECTS)):
        glyph = subject_glyph(index)
        row = [place(glyph, 56)]
        for _ in range(variants - 1):
            right, down = draw.uniform(-2.5, 2.5, 2)
            row.append(place(glyph, draw.uniform(51, 59), right, down))
        rows.append(np.stack(row))
    return np.stack(rows)


def other_pictures() -> NDArray[np.uint8]:
    """Draw every emoji the font has, to teach the autoencoder more than the subjects.

    Returns:
        Shape (n, SIDE, SIDE, 4) uint8 RGBA, about 1,900 without repeats.
    """
    seen: set[bytes] = set()
    pictures: list[NDArray[np.uint8]] = []
    for glyph, entry in emoji.EMOJI_DATA.items():
        if entry["status"] != emoji.STATUS["fully_qualified"] or "skin_tone" in entry["en"]:
            continue
        drawn = draw_glyph(glyph)
        if drawn is None or drawn.tobytes() in seen:
            continue
        seen.add(drawn.tobytes())
        pictures.append(place(drawn, 58))
    return np.stack(pictures)
