"""Text of any script in a picture: the first font that has a letter draws it.

Shipped fonts come first, so that most text looks the same on every machine: DejaVu Sans (Latin,
Greek, Cyrillic, Arabic, Hebrew) and Droid Sans Fallback (Chinese, Japanese). Fonts of the system
follow: Noto, and its emoji in colour. What no font has is written as its code point.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from safelight.errors import one_line

SHIPPED = ("DejaVuSans.ttf", "DroidSansFallbackFull.ttf")
SYSTEM = ("/usr/share/fonts", "/usr/local/share/fonts", "/System/Library/Fonts", "~/.fonts")
"""Folders that fontconfig and macOS keep fonts in."""
EMOJI_SIZE = 109
"""The one size, px, that Noto Color Emoji has."""
MISSING = "\uffff"
"""A noncharacter, which every font draws as what it lacks."""
JOINERS = "\u200d\ufe0e\ufe0f"
SKIN_TONES = range(0x1F3FB, 0x1F400)


@dataclass(frozen=True)
class Lettering:
    """Writes lines of text at one size."""

    size: int
    """Height of letters, px."""

    def shown(self, text: str) -> str:
        """One line, with the code point of each letter that no font has."""
        line = one_line(" ".join(text.split()))
        return "".join(
            char if char in JOINERS or _font_of(char) is not None else f"[U+{ord(char):04X}]"
            for char in line
        )

    def width(self, text: str) -> float:
        """Of one line that `shown` gave, px."""
        return sum(self._width(path, run) for path, run in _runs(text))

    def draw(self, image: Image.Image, left: int, top: int, text: str, ink: str) -> None:
        """Draw one line that `shown` gave.

        Args:
            image: RGB, drawn upon.
            left: of the line, px.
            top: of the line, px.
            text: in the order it is read; lines that begin from the right run to the left.
            ink: colour.
        """
        runs = list(_runs(text))
        if _runs_left(text):
            runs.reverse()
        pen, at = ImageDraw.Draw(image), float(left)
        for path, run in runs:
            if _is_emoji(path):
                drawn = self._emoji(path, run)
                image.paste(drawn, (round(at), top + self.size // 8), drawn)
            else:
                base = top + self.size
                pen.text((at, base), run, ink, _opened(path, self.size), anchor="ls")
            at += self._width(path, run)

    def _width(self, path: Path, run: str) -> float:
        if _is_emoji(path):
            return _opened(path, EMOJI_SIZE).getlength(run) * self.size / EMOJI_SIZE
        return _opened(path, self.size).getlength(run)

    def _emoji(self, path: Path, run: str) -> Image.Image:
        font = _opened(path, EMOJI_SIZE)
        wide = max(1, round(font.getlength(run)))
        whole = Image.new("RGBA", (wide, round(EMOJI_SIZE * 1.2)))
        ImageDraw.Draw(whole).text((0, 0), run, font=font, embedded_color=True)
        scale = self.size / EMOJI_SIZE
        return whole.resize((max(1, round(wide * scale)), max(1, round(whole.height * scale))))


def _runs(text: str) -> Iterator[tuple[Path, str]]:
    fonts: list[Path] = []
    for char in text:
        follows = char in JOINERS or unicodedata.category(char)[0] == "M" or ord(char) in SKIN_TONES
        spaces = char == " " and bool(fonts) and not _is_emoji(fonts[-1])
        joined = bool(fonts) and (follows or spaces)
        font = fonts[-1] if joined else _font_of(char)
        fonts.append(font or _candidates()[0])
    for path, group in groupby(zip(fonts, text, strict=True), key=lambda pair: pair[0]):
        yield path, "".join(char for _, char in group)


def _runs_left(text: str) -> bool:
    strong = (unicodedata.bidirectional(char) for char in text)
    return next((kind for kind in strong if kind in ("L", "R", "AL")), "L") != "L"


@cache
def _font_of(char: str) -> Path | None:
    fonts = _candidates()
    if ord(char) >= 0x1F000:
        fonts = sorted(fonts, key=lambda path: not _is_emoji(path))
    return next((path for path in fonts if _has(path, char)), None)


def _has(path: Path, char: str) -> bool:
    font = _opened(path, EMOJI_SIZE if _is_emoji(path) else 32)
    if char.isspace():
        return True
    return _drawn(font, char) != _drawn(font, MISSING)


def _drawn(font: ImageFont.FreeTypeFont, char: str) -> bytes:
    image = Image.new("L", (2 * EMOJI_SIZE, 2 * EMOJI_SIZE))
    ImageDraw.Draw(image).text((0, 0), char, 255, font)
    return image.tobytes()


def _is_emoji(path: Path) -> bool:
    return "Emoji" in path.name


@cache
def _candidates() -> list[Path]:
    shipped = [Path(__file__).parent / "fonts" / name for name in SHIPPED]
    system = {
        found
        for folder in SYSTEM
        for pattern in ("NotoColorEmoji.ttf", "NotoSansCJK-Regular.ttc", "NotoSans*-Regular.ttf")
        for found in Path(folder).expanduser().rglob(pattern)
    }
    return shipped + sorted(system, key=lambda path: (len(path.name), path))


@cache
def _opened(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
