"""The files of a folder or an archive, by name and in the order in which people count."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from safelight.errors import ContractMismatchError, InvalidFieldValueError

MOST_FILES = 20_000
"""Of a folder or archive, also those that take no part."""
LONGEST_PART = 200
"""Bytes."""
_SYSTEM = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
_DIGITS = re.compile(r"(\d+)")


class Member(Protocol):
    """A file of a folder or archive."""

    @property
    def name(self) -> str:
        """From the folder, parts between slashes; as it can be printed and kept."""
        ...

    def start(self, most: int) -> bytes:
        """Its first bytes."""
        ...

    def opened(self) -> AbstractContextManager[Path]:
        """A path to its content, whose last part is the file's own name."""
        ...


class LeftAside(NamedTuple):
    """A file that takes no part."""

    name: str
    """From the folder; with a slash at its end where it is a folder."""
    why: str
    """In a few words."""

    def __str__(self) -> str:
        """As logs and tables show it."""
        return f"{self.name}: {self.why}"


@dataclass(frozen=True)
class Members:
    """What a folder or archive holds."""

    title: str
    """The folder's or archive's own name."""
    files: Sequence[Member]
    """In natural order; each name once."""
    left_aside: Sequence[LeftAside]
    """What is none of anybody's pictures, such as hidden files."""


def in_order(title: str, files: Sequence[Member], left_aside: Sequence[LeftAside]) -> Members:
    """All that was found, sorted.

    Raises:
        ContractMismatchError: two files have one name, so that nobody can say which is meant.
    """
    ordered = sorted(files, key=lambda member: natural(member.name))
    names = Counter(unicodedata.normalize("NFC", member.name) for member in ordered)
    twice = next((name for name, count in names.items() if count > 1), None)
    if twice is not None:
        raise ContractMismatchError(
            f"{title} holds two files of the name {twice}", "rename one of them"
        )
    return Members(title, ordered, sorted(left_aside, key=lambda each: natural(each.name)))


def natural(name: str) -> tuple[tuple[tuple[int, int, str], ...], ...]:
    """Sorts `2.png` before `10.png`, and what lies in one folder together."""
    *folders, last = name.split("/")
    marked = [(1, part) for part in folders] + [(0, last)]
    return tuple(
        ((kind, 0, ""), *(_piece(piece) for piece in _DIGITS.split(part)), (0, 0, part))
        for kind, part in marked
    )


def _piece(piece: str) -> tuple[int, int, str]:
    number = piece.isdecimal()
    return (0, int(piece[:4000]), "") if number else (1, 0, piece.casefold())


def aside(parts: Sequence[str]) -> LeftAside | None:
    """Why a path takes no part whatever it holds: files of systems, and hidden ones."""
    for at, part in enumerate(parts):
        name = "/".join(parts[: at + 1]) + ("/" if at + 1 < len(parts) else "")
        if part == "__MACOSX" or part.casefold() in _SYSTEM:
            return LeftAside(name, "of the operating system")
        if part.startswith("."):
            return LeftAside(name, "hidden")
    return None


def printable(name: str) -> str:
    """A file's name without characters that break a line, or that no text can hold."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def file_name(name: str) -> str:
    """The last part of a name, no longer than disks take."""
    return name.rpartition("/")[2].encode()[-LONGEST_PART:].decode("utf-8", "ignore")


def check_file_count(count: int, title: str) -> None:
    """Refuse what nobody would look through.

    Raises:
        InvalidFieldValueError: there are too many files.
    """
    if count > MOST_FILES:
        raise InvalidFieldValueError(
            f"{title} holds more than {MOST_FILES} files", "split it into several batches"
        )
