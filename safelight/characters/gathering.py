"""A folder of pictures with captions beside them, as people collect them for a training."""

import os
from dataclasses import dataclass
from pathlib import Path

from safelight.errors import InvalidFieldValueError, InvalidMediaError, MissingFileError
from safelight.store.disk import disk_errors
from safelight.store.opening import opened_below

PICTURES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".jxl"}
)
CAPTION = ".txt"
MOST_PICTURES = 5000
LONGEST_CAPTION = 20_000
"""Bytes."""
PLACEHOLDER = "[trigger]"
"""Stands for the trigger word in captions."""


@dataclass(frozen=True)
class Gathered:
    """What a folder holds."""

    pictures: tuple[tuple[Path, str | None], ...]
    """Each with its caption; None where no text stands beside it."""
    left_aside: tuple[str, ...]
    """Names of what takes no part, and why."""


def gather(folder: Path) -> Gathered:
    """All pictures right in a folder, by name.

    Args:
        folder: links followed already.

    Raises:
        MissingFileError: there is no such folder, or no picture in it.
        InvalidMediaError: a caption is no text, or too long.
    """
    if not folder.is_dir():
        raise MissingFileError(f"there is no folder {folder}", "name a folder of pictures")
    pictures: list[Path] = []
    texts: dict[str, Path] = {}
    left: list[str] = []
    with disk_errors(folder):
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    for path in entries:
        if path.name.startswith("."):
            continue
        ending = path.suffix.lower()
        if path.is_symlink() or not path.is_file():
            left.append(f"{path.name}: no plain file")
        elif ending in PICTURES:
            pictures.append(path)
        elif ending == CAPTION:
            texts[path.stem] = path
        else:
            left.append(f"{path.name}: no picture")
    stems = {path.stem for path in pictures}
    left += [
        f"{path.name}: a text beside no picture" for s, path in texts.items() if s not in stems
    ]
    if not pictures:
        raise MissingFileError(
            f"there is no picture in {folder}", f"put pictures there: {', '.join(sorted(PICTURES))}"
        )
    if len(pictures) > MOST_PICTURES:
        raise InvalidFieldValueError(
            f"{folder} holds {len(pictures)} pictures, at most {MOST_PICTURES} are trained on",
            "take some out",
        )
    captioned = [
        (path, _caption(folder, texts[path.stem]) if path.stem in texts else None)
        for path in pictures
    ]
    return Gathered(tuple(captioned), tuple(left))


def captions_of(given: list[str | None], trigger: str, called: str) -> tuple[str, ...]:
    """The captions of pictures: `[trigger]` becomes the word, and it stands where none is.

    Raises:
        InvalidFieldValueError: a picture has no caption, and there is no trigger word.
    """
    lacking = [at for at, text in enumerate(given, 1) if text is None]
    if lacking and not trigger:
        raise InvalidFieldValueError(
            f"{called}: picture {lacking[0]} of {len(given)} has no caption, and there is no "
            "trigger word",
            "give trigger a word, or put a .txt file beside each picture",
        )
    return tuple(trigger if text is None else text.replace(PLACEHOLDER, trigger) for text in given)


def _caption(folder: Path, path: Path) -> str:
    with opened_below(folder, path) as handle, os.fdopen(os.dup(handle), "rb") as file:
        with disk_errors(path):
            content = file.read(LONGEST_CAPTION + 1)
    if len(content) > LONGEST_CAPTION:
        raise InvalidMediaError(
            f"{path.name} has more than {LONGEST_CAPTION} bytes, expected a caption",
            f"shorten {path.name}",
        )
    try:
        return " ".join(content.decode("utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise InvalidMediaError(
            f"{path.name} is no UTF-8 text at byte {error.start}", f"save {path.name} as UTF-8"
        ) from error
